//! Random queries whose result is determined: a LIMIT or a row number always stands over a total order.

use rand::Rng;

use super::data::Type;
use super::expr::{Column, Grammar, Item, Out, PLAIN};

/// A SELECT and its columns.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) columns: Vec<Out>,
}

impl Query {
    pub(crate) fn scope(&self, alias: &str) -> Vec<Column> {
        let column = |o: &Out| Column { sql: format!("{alias}.{}", o.name), ty: o.ty, wild: o.wild };
        self.columns.iter().map(column).collect()
    }
}

impl Grammar<'_> {
    /// A query with at most `depth` levels of queries within queries.
    pub(crate) fn query(&mut self, depth: usize) -> Query {
        match self.rng.random_range(0..40) {
            0..9 => self.select(depth),
            9..18 => self.aggregated(depth),
            18..22 if !self.portable => self.windowed(depth),
            22..26 => self.set_operation(depth),
            26..29 => self.over(depth),
            29..33 => self.top_n(depth),
            33..35 => self.limited(depth),
            35 => self.grouping_sets(depth),
            36 => self.recursive(),
            37 => self.with_cte(depth),
            _ => self.distinct(depth),
        }
    }

    pub(crate) fn finish(&mut self, mut items: Vec<Item>, rest: &str, head: &str) -> Query {
        // Whoever reads the result has something to compare and to order by.
        if !items.iter().any(|i| PLAIN.contains(&i.ty)) {
            items.push(Item { sql: "1".to_owned(), ty: Type::Int, wild: false });
        }
        self.n_queries += 1;
        // DataFusion cannot order by a column that has the name of another one's alias.
        let name = |i: usize| format!("c{i}_{}", self.n_queries);
        let columns: Vec<Out> =
            items.iter().enumerate().map(|(i, item)| Out { name: name(i), ty: item.ty, wild: item.wild }).collect();
        let list: Vec<String> =
            items.iter().zip(&columns).map(|(item, c)| format!("{} AS {}", item.sql, c.name)).collect();
        Query { sql: format!("{head} {} {rest}", list.join(", ")), columns }
    }

    fn item(&mut self, scope: &[Column]) -> Item {
        if self.chance(0.6) {
            let column = self.plain_column(scope);
            return Item { sql: column.sql, ty: column.ty, wild: column.wild };
        }
        let ty = self.present(scope, &PLAIN);
        Item { sql: self.value(scope, ty, 2), ty, wild: false }
    }

    pub(crate) fn items(&mut self, scope: &[Column], n: usize) -> Vec<Item> {
        (0..n).map(|_| self.item(scope)).collect()
    }

    fn select(&mut self, depth: usize) -> Query {
        self.uses("select");
        let (from, scope) = self.from(depth);
        let n = self.rng.random_range(2..=5);
        let mut items = self.items(&scope, n);
        // What cannot be compared may still be shown.
        if let Some(column) = scope.iter().find(|c| !PLAIN.contains(&c.ty)) {
            items.push(Item { sql: column.sql.clone(), ty: column.ty, wild: false });
        }
        if self.chance(0.12) {
            items.push(self.scalar_subquery(&scope));
        }
        if self.chance(0.1) {
            items.push(self.asked_value(&scope));
        }
        if self.chance(0.1) {
            items.push(Item { sql: self.asked_truth(&scope), ty: Type::Bool, wild: false });
        }
        if self.chance(0.06) {
            self.uses("current_timestamp");
            let time = self.time_column(&scope);
            items.push(Item { sql: format!("{time} < CURRENT_TIMESTAMP"), ty: Type::Bool, wild: false });
        }
        let filter = self.filter(&scope, 0.45);
        self.finish(items, &format!("FROM {from}{filter}"), "SELECT")
    }

    fn distinct(&mut self, depth: usize) -> Query {
        self.uses("distinct");
        let (from, scope) = self.from(depth);
        let items = self.items(&scope, 2);
        let filter = self.filter(&scope, 0.3);
        self.finish(items, &format!("FROM {from}{filter}"), "SELECT DISTINCT")
    }

    /// ` WHERE …`, or nothing.
    pub(crate) fn filter(&mut self, scope: &[Column], p: f64) -> String {
        if !self.chance(p) {
            return String::new();
        }
        self.uses("filter rows");
        let mut all = vec![self.condition(scope)];
        if self.chance(0.1) {
            all.push(self.condition(scope));
        }
        format!(" WHERE {}", all.join(" AND "))
    }

    fn time_column(&mut self, scope: &[Column]) -> String {
        let column = self.tame(scope, Type::Time);
        column.unwrap_or_else(|| self.literal(Type::Time))
    }

    /// A condition that may hold a subquery or the time.
    fn condition(&mut self, scope: &[Column]) -> String {
        match self.rng.random_range(0..22) {
            20 | 21 => self.asked_condition(scope),
            0 => {
                self.uses("current_timestamp");
                let (time, days) = (self.time_column(scope), self.rng.random_range(0..12));
                format!("{time} {} CURRENT_TIMESTAMP - INTERVAL '{days}' DAY", self.one(&[">", "<=", "<"]))
            }
            1 | 2 => {
                let not = self.one(&["", "NOT "]);
                self.uses(if not.is_empty() { "exists" } else { "not exists" });
                let (inner, alias, on) = self.correlated(scope);
                let further =
                    if self.chance(0.4) { format!(" AND {}", self.boolean(&inner, 1)) } else { String::new() };
                let residual = self.residual(scope, &inner, 0.2);
                format!("{not}EXISTS (SELECT 1 FROM {alias} WHERE {on}{further}{residual})")
            }
            3 | 4 => {
                let not = self.one(&["", "NOT "]);
                self.uses(if not.is_empty() { "in subquery" } else { "not in subquery" });
                let (inner, from) = self.leaf();
                let ty = self.present(scope, &[Type::Int, Type::Int, Type::Text, Type::Date]);
                let (a, b) = (self.value(scope, ty, 1), self.value(&inner, ty, 0));
                let further =
                    if self.chance(0.5) { format!(" WHERE {}", self.boolean(&inner, 1)) } else { String::new() };
                format!("{a} {not}IN (SELECT {b} FROM {from}{further})")
            }
            5 => {
                self.uses("scalar subquery");
                let (inner, from) = self.leaf();
                let ty = self.present(scope, &[Type::Int, Type::Dec, Type::Date]);
                let (a, b) = (self.value(scope, ty, 1), self.value(&inner, ty, 0));
                let function = if ty == Type::Int { "sum" } else { self.one(&["min", "max"]) };
                format!("{a} {} (SELECT {function}({b}) FROM {from})", self.one(&["<", ">=", "="]))
            }
            _ => self.boolean(scope, 1),
        }
    }

    /// A relation to put into a subquery, and an equality between it and the outer scope.
    fn correlated(&mut self, scope: &[Column]) -> (Vec<Column>, String, String) {
        let (inner, from) = self.leaf();
        let ty = self.present(scope, &[Type::Int, Type::Int, Type::Int, Type::Text]);
        // DataFusion wants a column of the inner relation in the equality.
        let column =
            inner.iter().find(|c| c.ty == ty && !c.wild).or_else(|| inner.iter().find(|c| PLAIN.contains(&c.ty)));
        let inside = column.expect("every relation has a plain column").clone();
        let outside = self.value(scope, inside.ty, 0);
        (inner, from, format!("{} = {outside}", inside.sql))
    }

    fn scalar_subquery(&mut self, scope: &[Column]) -> Item {
        self.uses("correlated scalar subquery");
        let (inner, from, on) = self.correlated(scope);
        let (call, ty) = match self.rng.random_range(0..4) {
            0 | 1 => ("count(*)".to_owned(), Type::Int),
            2 => (format!("sum({})", self.value(&inner, Type::Dec, 0)), Type::Dec),
            _ => (format!("max({})", self.value(&inner, Type::Time, 0)), Type::Time),
        };
        Item { sql: format!("(SELECT {call} FROM {from} WHERE {on})"), ty, wild: false }
    }

    /// A table or view under a fresh alias.
    pub(crate) fn leaf(&mut self) -> (Vec<Column>, String) {
        let alias = self.alias();
        let column = |o: &Out| Column { sql: format!("{alias}.{}", o.name), ty: o.ty, wild: o.wild };
        if !self.views.is_empty() && self.chance(0.2) {
            self.uses("view over view");
            let at = self.rng.random_range(0..self.views.len());
            let (name, columns) = &self.views[at];
            return (columns.iter().map(column).collect(), format!("{name} AS {alias}"));
        }
        let at = self.rng.random_range(0..self.tables.len());
        (self.table_scope(at, &alias), format!("{} AS {alias}", self.tables[at].name))
    }

    pub(crate) fn table_scope(&self, at: usize, alias: &str) -> Vec<Column> {
        let wild = |c: &super::data::ColumnSpec| c.range == super::data::Range::Wild;
        self.tables[at]
            .columns
            .iter()
            .map(|c| Column { sql: format!("{alias}.{}", c.name), ty: c.ty, wild: wild(c) })
            .collect()
    }

    /// What stands behind FROM, and its columns.
    pub(crate) fn from(&mut self, depth: usize) -> (String, Vec<Column>) {
        let (from, scope) = self.plain_from(depth);
        match self.rng.random_range(0..24) {
            0 => self.lateral(&from, scope),
            // The array must be of a table that has a name, and of no outer join's.
            1 if !from.contains("JOIN") => self.unnested(&from, scope),
            _ => (from, scope),
        }
    }

    fn plain_from(&mut self, depth: usize) -> (String, Vec<Column>) {
        let one = |(scope, from)| (from, scope);
        match self.rng.random_range(0..10) {
            0..4 => one(self.leaf()),
            4..6 if depth > 0 => {
                let (query, alias) = (self.query(depth - 1), self.alias());
                (format!("({}) AS {alias}", query.sql), query.scope(&alias))
            }
            _ => self.join(depth),
        }
    }

    fn join(&mut self, depth: usize) -> (String, Vec<Column>) {
        let (left, mut scope) = match depth > 0 && self.chance(0.4) {
            true => self.from(depth - 1),
            false => {
                let (scope, from) = self.leaf();
                (from, scope)
            }
        };
        let (right_scope, right) = self.leaf();
        if left.split(' ').next() == right.split(' ').next() {
            self.uses("self join");
        }
        let ty = self.present(&scope, &[Type::Int, Type::Int, Type::Int, Type::Text, Type::Date]);
        let pick = |this: &mut Self, scope: &[Column]| match this.tame(scope, ty) {
            Some(column) => column,
            None => this.literal(ty),
        };
        let (a, b) = (pick(self, &scope), pick(self, &right_scope));
        let (kind, feature) = self.one(&[
            ("JOIN", "inner join"),
            ("JOIN", "inner join"),
            ("LEFT JOIN", "left join"),
            ("LEFT JOIN", "left join"),
            ("RIGHT JOIN", "right join"),
            ("FULL JOIN", "full join"),
            ("CROSS JOIN", "cross join"),
        ]);
        self.uses(feature);
        let sql = if kind == "CROSS JOIN" {
            // One row on the other side keeps the product small.
            let (inner, from) = self.leaf();
            let (alias, item) = (self.alias(), self.aggregate(&inner));
            let sql = format!("{left} CROSS JOIN (SELECT {} AS c0 FROM {from}) AS {alias}", item.sql);
            scope.push(Column { sql: format!("{alias}.c0"), ty: item.ty, wild: item.wild });
            return (sql, scope);
        } else {
            let equals = if self.chance(0.1) { "IS NOT DISTINCT FROM" } else { "=" };
            let residual = self.residual(&scope, &right_scope, 0.3);
            let is_table = self.tables.iter().any(|t| right.starts_with(&format!("{} AS ", t.name)));
            if !self.portable && is_table && matches!(kind, "JOIN" | "LEFT JOIN") && self.chance(0.1) {
                self.uses("as of");
                let (table, alias) = right.split_once(" AS ").expect("every relation has an alias");
                let as_of = format!("{table} FOR SYSTEM_TIME AS OF PROCTIME() AS {alias}");
                scope.extend(right_scope);
                return (format!("{left} {kind} {as_of} ON {a} = {b}"), scope);
            }
            format!("{left} {kind} {right} ON {a} {equals} {b}{residual}")
        };
        scope.extend(right_scope);
        (sql, scope)
    }

    /// ` AND …` over columns of both sides, or nothing.
    fn residual(&mut self, left: &[Column], right: &[Column], p: f64) -> String {
        if !self.chance(p) {
            return String::new();
        }
        self.uses("residual condition");
        let ty = self.present(right, &[Type::Int, Type::Dec, Type::Time]);
        let (a, b) = (self.value(left, ty, 1), self.value(right, ty, 0));
        format!(" AND {a} {} {b}", self.one(&["<", ">", "<>"]))
    }

    fn set_operation(&mut self, depth: usize) -> Query {
        let (operator, feature) = self.one(&[
            ("UNION ALL", "union all"),
            ("UNION", "union"),
            ("INTERSECT", "intersect"),
            ("INTERSECT ALL", "intersect all"),
            ("EXCEPT", "except"),
            ("EXCEPT ALL", "except all"),
        ]);
        self.uses(feature);
        let n = self.rng.random_range(1..=3);
        let types: Vec<Type> =
            (0..n).map(|_| self.one(&[Type::Int, Type::Text, Type::Dec, Type::Date, Type::Bool])).collect();
        let mut sides = Vec::new();
        for _ in 0..2 {
            let (from, scope) = self.from(depth.saturating_sub(1));
            let items = types.iter().map(|ty| Item { sql: self.value(&scope, *ty, 1), ty: *ty, wild: false }).collect();
            let filter = self.filter(&scope, 0.35);
            sides.push(self.finish(items, &format!("FROM {from}{filter}"), "SELECT"));
        }
        let columns = sides[0].columns.clone();
        Query { sql: format!("{} {operator} {}", sides[0].sql, sides[1].sql), columns }
    }

    /// A relation with the columns that can be ordered by, all of them in a random order.
    fn ordered(&mut self, depth: usize) -> (String, Vec<Column>, String) {
        let (from, scope) = self.from(depth);
        let mut scope: Vec<Column> = scope.into_iter().filter(|c| PLAIN.contains(&c.ty)).collect();
        for i in (1..scope.len()).rev() {
            let j = self.rng.random_range(0..=i);
            scope.swap(i, j);
        }
        let order: Vec<String> = scope.iter().map(|c| format!("{} {}", c.sql, self.direction())).collect();
        let order = order.join(", ");
        (from, scope, order)
    }

    fn partition(&mut self, scope: &[Column]) -> String {
        match self.rng.random_range(0..4) {
            0 => String::new(),
            _ => format!("PARTITION BY {} ", self.plain_column(scope).sql),
        }
    }

    fn over(&mut self, depth: usize) -> Query {
        self.uses("over");
        let (from, scope, order) = self.ordered(depth);
        let mut items = self.items(&scope, 2);
        for _ in 0..self.rng.random_range(1..=2) {
            let partition = self.partition(&scope);
            let x = self.value(&scope, Type::Int, 0);
            let any = self.plain_column(&scope);
            let frame = self.one(&[
                "",
                " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
                " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
                " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
                " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
            ]);
            let one_column = format!("ORDER BY {} {}", any.sql, self.direction());
            let total = format!("OVER ({partition}ORDER BY {order}");
            let (sql, ty, wild) = match self.rng.random_range(0..10) {
                0 => (format!("CAST(sum({x}) {total}{frame}) AS BIGINT)"), Type::Int, false),
                1 => (format!("count(*) OVER ({partition}{one_column})"), Type::Int, false),
                2 if any.ty != Type::Bool => (format!("max({}) {total}{frame})", any.sql), any.ty, any.wild),
                3 => (format!("lag({}) {total})", any.sql), any.ty, any.wild),
                4 => (format!("lead({}, 2) {total})", any.sql), any.ty, any.wild),
                5 => (format!("CAST(rank() OVER ({partition}{one_column}) AS BIGINT)"), Type::Int, false),
                6 => (format!("CAST(dense_rank() OVER ({partition}{one_column}) AS BIGINT)"), Type::Int, false),
                7 => (format!("first_value({}) {total}{frame})", any.sql), any.ty, any.wild),
                8 => (format!("CAST(sum({x}) OVER ({}) AS BIGINT)", partition.trim()), Type::Int, false),
                _ => (format!("CAST(row_number() {total}) AS BIGINT)"), Type::Int, false),
            };
            items.push(Item { sql, ty, wild });
        }
        let filter = self.filter(&scope, 0.3);
        self.finish(items, &format!("FROM {from}{filter}"), "SELECT")
    }

    fn top_n(&mut self, depth: usize) -> Query {
        let (from, scope, order) = self.ordered(depth);
        let (partition, filter) = (self.partition(&scope), self.filter(&scope, 0.3));
        let mut items = self.items(&scope, 3);
        items.push(Item {
            sql: format!("row_number() OVER ({partition}ORDER BY {order})"),
            ty: Type::Int,
            wild: false,
        });
        let inner = self.finish(items, &format!("FROM {from}{filter}"), "SELECT");
        let n = self.one(&[1, 1, 2, 3, 5]);
        self.uses("row number");
        self.uses(if n == 1 { "row number" } else { "top n" });
        let alias = self.alias();
        let outer: Vec<Item> = inner.scope(&alias)[..if self.chance(0.5) { 3 } else { 4 }]
            .iter()
            .map(|c| Item { sql: c.sql.clone(), ty: c.ty, wild: c.wild })
            .collect();
        let limit = if n == 1 { "= 1".to_owned() } else { format!("<= {n}") };
        let rank = &inner.columns[3].name;
        self.finish(outer, &format!("FROM ({}) AS {alias} WHERE {alias}.{rank} {limit}", inner.sql), "SELECT")
    }

    fn limited(&mut self, depth: usize) -> Query {
        self.uses("order by limit");
        let (from, scope, order) = self.ordered(depth);
        let (items, filter) = (self.items(&scope, 3), self.filter(&scope, 0.3));
        if self.chance(0.25) {
            self.uses("fetch with ties");
            let (first, n) = (order.split(", ").next().unwrap_or(&order), self.rng.random_range(1..5));
            let rest = format!("FROM {from}{filter} ORDER BY {first} FETCH FIRST {n} ROWS WITH TIES");
            return self.finish(items, &rest, "SELECT");
        }
        let mut rest = format!("FROM {from}{filter} ORDER BY {order} LIMIT {}", self.rng.random_range(1..9));
        if self.chance(0.4) {
            self.uses("offset");
            rest.push_str(" OFFSET 2");
        }
        self.finish(items, &rest, "SELECT")
    }

    fn with_cte(&mut self, depth: usize) -> Query {
        self.uses("cte");
        let inner = self.query(depth.saturating_sub(1));
        let (name, a) = (self.alias(), self.alias());
        let mut scope = inner.scope(&a);
        let mut from = format!("{name} AS {a}");
        if inner.columns[0].ty == Type::Int && self.chance(0.4) {
            let b = self.alias();
            self.uses("self join");
            let key = &inner.columns[0].name;
            from = format!("{from} JOIN {name} AS {b} ON {a}.{key} = {b}.{key}");
            scope.extend(inner.scope(&b));
        }
        let (items, filter) = (self.items(&scope, 3), self.filter(&scope, 0.5));
        self.finish(items, &format!("FROM {from}{filter}"), &format!("WITH {name} AS ({}) SELECT", inner.sql))
    }
}
