//! Random subqueries at every place of a query: shown, inside conditions and aggregates, correlated by any comparison, over
//! two levels, with a LIMIT, and LATERAL.

use super::data::Type;
use super::expr::{Column, Grammar, Item, PLAIN};

/// A relation of a subquery under an alias, and a condition that ties it to the outer query.
struct Tied {
    scope: Vec<Column>,
    from: String,
    on: String,
}

impl Grammar<'_> {
    fn tied(&mut self, outer: &[Column]) -> Tied {
        let (scope, from) = self.leaf();
        let ty = self.present(&scope, &[Type::Int, Type::Int, Type::Text, Type::Date]);
        let (a, b) = (self.value(&scope, ty, 0), self.value(outer, ty, 0));
        let mut on = format!("{a} {} {b}", self.one(&["=", "=", "=", "<", "<>", ">=", "IS NOT DISTINCT FROM"]));
        if self.chance(0.3) {
            let ty = self.present(outer, &[Type::Int, Type::Date, Type::Dec]);
            let (a, b) = (self.value(&scope, ty, 0), self.value(outer, ty, 0));
            on = format!("{on} {} {a} {} {b}", self.one(&["AND", "OR"]), self.one(&["<", "<>", ">="]));
        }
        if self.chance(0.3) {
            on = format!("({on}) AND {}", self.boolean(&scope, 1));
        }
        Tied { scope, from, on }
    }

    /// `EXISTS`, over one level or two.
    fn exists(&mut self, outer: &[Column]) -> String {
        let Tied { scope, from, on } = self.tied(outer);
        if self.chance(0.7) {
            return format!("EXISTS (SELECT 1 FROM {from} WHERE {on})");
        }
        self.uses("two levels of subqueries");
        let both: Vec<Column> = if self.chance(0.5) { [outer, &scope].concat() } else { scope };
        let inner = self.tied(&both);
        let not = self.one(&["", "NOT "]);
        format!(
            "EXISTS (SELECT 1 FROM {from} WHERE ({on}) AND {not}EXISTS (SELECT 1 FROM {} WHERE {}))",
            inner.from, inner.on
        )
    }

    /// `IN`, `ANY` or `ALL`, of single values or rows.
    fn compared_with_all(&mut self, outer: &[Column]) -> String {
        let tied = self.tied(outer);
        let filter = match self.one(&[0, 1, 1]) {
            0 => String::new(),
            _ => format!(" WHERE {}", tied.on),
        };
        let ty = self.present(outer, &[Type::Int, Type::Int, Type::Text]);
        let (a, b) = (self.value(outer, ty, 0), self.value(&tied.scope, ty, 0));
        let not = self.one(&["", "NOT "]);
        match self.one(&[0, 0, 1, 2]) {
            0 => format!("{a} {not}IN (SELECT {b} FROM {}{filter})", tied.from),
            1 => {
                self.uses("row in subquery");
                let ty = self.present(outer, &[Type::Date, Type::Text, Type::Int]);
                let (c, d) = (self.value(outer, ty, 0), self.value(&tied.scope, ty, 0));
                format!("({a}, {c}) {not}IN (SELECT {b}, {d} FROM {}{filter})", tied.from)
            }
            _ => {
                self.uses("any and all");
                let (op, all) = (self.one(&["=", "<", ">=", "<>"]), self.one(&["ANY", "ALL"]));
                format!("{a} {op} {all} (SELECT {b} FROM {}{filter})", tied.from)
            }
        }
    }

    /// A value by a subquery that has one row at most.
    pub(crate) fn asked_value(&mut self, outer: &[Column]) -> Item {
        let single: Vec<usize> = (0..self.tables.len()).filter(|t| self.tables[*t].n_key == 1).collect();
        match self.one(&[0, 0, 1, 2]) {
            0 => {
                self.uses("scalar subquery by comparison");
                let Tied { scope, from, on } = self.tied(outer);
                let (call, ty) = match self.one(&[0, 1, 2]) {
                    0 => ("count(*)".to_owned(), Type::Int),
                    1 => (format!("sum({})", self.value(&scope, Type::Dec, 0)), Type::Dec),
                    _ => (format!("min({})", self.value(&scope, Type::Date, 0)), Type::Date),
                };
                Item { sql: format!("(SELECT {call} FROM {from} WHERE {on})"), ty, wild: false }
            }
            1 if !single.is_empty() => {
                self.uses("scalar subquery by key");
                let (at, alias) = (self.one(&single), self.alias());
                let scope = self.table_scope(at, &alias);
                let key = scope[0].clone();
                let shown = self.plain_column(&scope);
                let b = self.value(outer, key.ty, 0);
                let sql =
                    format!("(SELECT {} FROM {} AS {alias} WHERE {} = {b})", shown.sql, self.tables[at].name, key.sql);
                Item { sql, ty: shown.ty, wild: shown.wild }
            }
            _ => {
                self.uses("first row of each");
                let Tied { scope, from, on } = self.tied(outer);
                let (order, shown) = (self.total_order(&scope), self.plain_column(&scope));
                let offset = self.one(&["", "", " OFFSET 1"]);
                let sql = format!("(SELECT {} FROM {from} WHERE {on} ORDER BY {order} LIMIT 1{offset})", shown.sql);
                Item { sql, ty: shown.ty, wild: shown.wild }
            }
        }
    }

    fn total_order(&mut self, scope: &[Column]) -> String {
        let columns = scope.iter().filter(|c| PLAIN.contains(&c.ty));
        let order: Vec<String> = columns.map(|c| format!("{} {}", c.sql, self.direction())).collect();
        order.join(", ")
    }

    /// A truth value that asks subqueries, to be shown or combined: NULL where it cannot be known.
    pub(crate) fn asked_truth(&mut self, outer: &[Column]) -> String {
        match self.one(&[0, 0, 1, 1, 2]) {
            0 => {
                self.uses("exists as a value");
                self.exists(outer)
            }
            1 => {
                self.uses("in as a value");
                self.compared_with_all(outer)
            }
            _ => {
                let item = self.asked_value(outer);
                format!("{} IS NOT NULL", item.sql)
            }
        }
    }

    /// A condition that asks subqueries somewhere inside.
    pub(crate) fn asked_condition(&mut self, outer: &[Column]) -> String {
        self.uses("subquery inside a condition");
        let asked = self.asked_truth(outer);
        match self.one(&[0, 1, 2, 3, 4]) {
            0 => asked,
            1 => format!("({} OR {asked})", self.boolean(outer, 1)),
            2 => format!("NOT ({} OR {asked})", self.boolean(outer, 1)),
            3 => format!("({asked}) IS {}", self.one(&["NULL", "NOT TRUE", "FALSE"])),
            _ => format!("CASE WHEN {} THEN {asked} ELSE {} END", self.boolean(outer, 0), self.boolean(outer, 0)),
        }
    }

    /// An aggregate over what a subquery says of each row.
    pub(crate) fn asked_aggregate(&mut self, outer: &[Column]) -> Item {
        self.uses("subquery inside an aggregate");
        let truth = self.asked_truth(outer);
        let sql = match self.one(&[0, 1]) {
            0 => format!("CAST(sum(CASE WHEN {truth} THEN 1 ELSE 0 END) AS BIGINT)"),
            _ => format!("CAST(count(CASE WHEN {truth} THEN 1 END) AS BIGINT)"),
        };
        Item { sql, ty: Type::Int, wild: false }
    }

    /// `from` with a lateral join behind it, and the columns of both.
    pub(crate) fn lateral(&mut self, from: &str, outer: Vec<Column>) -> (String, Vec<Column>) {
        self.uses("lateral");
        let Tied { scope, from: inner, on } = self.tied(&outer);
        let alias = self.alias();
        let (kind, end) = self.one(&[("CROSS JOIN", ""), ("JOIN", " ON TRUE"), ("LEFT JOIN", " ON TRUE")]);
        let shown = self.plain_column(&scope);
        let ty = self.present(&outer, &[Type::Int]);
        let sum = format!("({} + {})", self.value(&scope, ty, 0), self.value(&outer, ty, 0));
        let (select, columns) = match self.one(&[0, 1, 2]) {
            0 => {
                self.uses("lateral with limit");
                let (order, n) = (self.total_order(&scope), self.one(&[1, 2, 3]));
                let sql = format!("SELECT {} AS l0 FROM {inner} WHERE {on} ORDER BY {order} LIMIT {n}", shown.sql);
                (sql, vec![(shown.ty, shown.wild)])
            }
            1 => {
                let sql = format!("SELECT {} AS l0, {sum} AS l1 FROM {inner} WHERE {on}", shown.sql);
                (sql, vec![(shown.ty, shown.wild), (ty, true)])
            }
            _ => {
                let sql =
                    format!("SELECT count(*) AS l0, min({}) AS l1 FROM {inner} WHERE {on}", self.value(&scope, ty, 0));
                (sql, vec![(Type::Int, false), (ty, false)])
            }
        };
        let mut scope = outer;
        let made = columns.into_iter().enumerate();
        scope.extend(made.map(|(i, (ty, wild))| Column { sql: format!("{alias}.l{i}"), ty, wild }));
        (format!("{from} {kind} LATERAL ({select}) AS {alias}{end}"), scope)
    }

    /// `from` with an UNNEST of a text's parts behind it.
    pub(crate) fn unnested(&mut self, from: &str, outer: Vec<Column>) -> (String, Vec<Column>) {
        let Some(text) = self.tame(&outer, Type::Text) else { return (from.to_owned(), outer) };
        self.uses("unnest");
        let (alias, with) = (self.alias(), self.chance(0.5));
        let (kind, end) = self.one(&[("CROSS JOIN", ""), ("LEFT JOIN", " ON TRUE")]);
        let ordinality = if with {
            format!(" WITH ORDINALITY AS {alias} ({alias}e, {alias}n)")
        } else {
            format!(" AS {alias} ({alias}e)")
        };
        let mut scope = outer;
        scope.push(Column { sql: format!("{alias}.{alias}e"), ty: Type::Text, wild: false });
        if with {
            scope.push(Column { sql: format!("{alias}.{alias}n"), ty: Type::Int, wild: false });
        }
        (format!("{from} {kind} UNNEST(string_to_array(NULLIF({text}, ''), 'a')){ordinality}{end}"), scope)
    }
}
