//! Random queries with GROUP BY: plain, by sets, and over windows of time; and recursive ones.

use rand::Rng;

use super::data::Type;
use super::expr::{Column, Grammar, Item, Out, PLAIN};
use super::query::Query;

impl Grammar<'_> {
    /// Something to group by. Never a literal, which would be a position.
    fn key(&mut self, scope: &[Column]) -> Item {
        let column = self.plain_column(scope);
        let plain = |sql, ty| Item { sql, ty, wild: false };
        match (column.ty, self.rng.random_range(0..3)) {
            (Type::Int, 0) if !column.wild => plain(format!("{} % 4", column.sql), Type::Int),
            (Type::Text, 0) => plain(format!("upper({})", column.sql), Type::Text),
            (Type::Time, 0) if !column.wild => plain(format!("date_trunc('day', {})", column.sql), Type::Time),
            (Type::Dec, 0) => plain(format!("CASE WHEN {} > 100 THEN 'big' ELSE 'small' END", column.sql), Type::Text),
            (ty, _) => Item { sql: column.sql, ty, wild: column.wild },
        }
    }

    fn calls(&mut self, scope: &[Column], n_max: usize) -> Vec<Item> {
        (0..self.rng.random_range(1..=n_max)).map(|_| self.aggregate(scope)).collect()
    }

    pub(crate) fn aggregated(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let n_keys = self.one(&[0, 1, 1, 1, 2, 2]);
        self.uses(if n_keys == 0 { "global aggregate" } else { "group by" });
        let mut items: Vec<Item> = (0..n_keys).map(|_| self.key(&scope)).collect();
        let keys: Vec<String> = items.iter().map(|k| k.sql.clone()).collect();
        items.extend(self.calls(&scope, 4));
        if self.chance(0.1) {
            items.push(self.asked_aggregate(&scope));
        }
        let group = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        let having = match self.rng.random_range(0..8) {
            0 => " HAVING count(*) > 2".to_owned(),
            1 => format!(" HAVING sum({}) > 100", self.value(&scope, Type::Int, 0)),
            2 => format!(" HAVING max({}) IS NOT NULL", self.plain_column(&scope).sql),
            _ => String::new(),
        };
        if !having.is_empty() {
            self.uses("having");
        }
        // A key that groups need not be shown.
        if n_keys == 2 && self.chance(0.3) {
            items.remove(0);
        }
        let filter = self.filter(&scope, 0.3);
        self.finish(items, &format!("FROM {from}{filter}{group}{having}"), "SELECT")
    }

    pub(crate) fn grouping_sets(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let (a, b) = (self.plain_column(&scope), self.plain_column(&scope));
        if a.sql == b.sql {
            return self.aggregated(depth);
        }
        let (form, feature) = self.one(&[("GROUPING SETS", "grouping sets"), ("ROLLUP", "rollup"), ("CUBE", "cube")]);
        self.uses(feature);
        let sets = match form {
            "GROUPING SETS" => format!("GROUPING SETS (({}), ({}), ())", a.sql, b.sql),
            other => format!("{other} ({}, {})", a.sql, b.sql),
        };
        let mut items: Vec<Item> = [a, b].into_iter().map(|c| Item { sql: c.sql, ty: c.ty, wild: c.wild }).collect();
        items.extend(self.calls(&scope, 3));
        let filter = self.filter(&scope, 0.3);
        self.finish(items, &format!("FROM {from}{filter} GROUP BY {sets}"), "SELECT")
    }

    pub(crate) fn windowed(&mut self, _: usize) -> Query {
        let (at, alias) = (self.rng.random_range(0..self.tables.len()), self.alias());
        let table = self.tables[at].name.clone();
        let (data, time) = (format!("TABLE {table}"), "DESCRIPTOR(at)");
        let (call, feature) = match self.rng.random_range(0..7) {
            0 => (format!("TUMBLE({data}, {time}, INTERVAL '1' DAY)"), "tumble"),
            1 => (format!("TUMBLE({data}, {time}, INTERVAL '7' HOUR, INTERVAL '30' MINUTE)"), "tumble"),
            2 => (format!("HOP({data}, {time}, INTERVAL '6' HOUR, INTERVAL '1' DAY)"), "hop"),
            3 => (format!("HOP({data}, {time}, INTERVAL '5' HOUR, INTERVAL '15' HOUR)"), "hop"),
            4 => (format!("CUMULATE({data}, {time}, INTERVAL '8' HOUR, INTERVAL '1' DAY)"), "cumulate"),
            5 => (format!("SESSION({data}, {time}, INTERVAL '10' HOUR)"), "session"),
            _ => (format!("SESSION({data} PARTITION BY ref, {time}, INTERVAL '2' DAY)"), "session"),
        };
        self.uses(feature);
        let from = if self.chance(0.7) { format!("TABLE({call})") } else { call };
        let mut scope = self.table_scope(at, &alias);
        let window = |name: &str| Column { sql: format!("{alias}.{name}"), ty: Type::Time, wild: true };
        let bounds = [window("window_start"), window("window_end")];
        let shown = |c: &Column| Item { sql: c.sql.clone(), ty: c.ty, wild: c.wild };
        let mut items: Vec<Item> = bounds.iter().map(shown).collect();
        if self.chance(0.25) {
            scope.extend([window("window_start"), window("window_end"), window("window_time")]);
            items.extend(self.items(&scope, 2));
            let filter = self.filter(&scope, 0.3);
            return self.finish(items, &format!("FROM {from} AS {alias}{filter}"), "SELECT");
        }
        if feature != "session" && self.chance(0.2) {
            self.uses("top n by window");
            let order: Vec<String> = scope.iter().filter(|c| PLAIN.contains(&c.ty)).map(|c| c.sql.clone()).collect();
            let order: Vec<String> = order.into_iter().map(|c| format!("{c} {}", self.direction())).collect();
            let over = format!("PARTITION BY {alias}.window_start, {alias}.window_end ORDER BY {}", order.join(", "));
            items.extend(self.items(&scope, 2));
            items.push(Item { sql: format!("row_number() OVER ({over})"), ty: Type::Int, wild: false });
            let inner = self.finish(items, &format!("FROM {from} AS {alias}"), "SELECT");
            let outer = self.alias();
            let shown = inner.scope(&outer);
            let (rank, n) = (shown[4].sql.clone(), self.one(&[1, 2, 3]));
            let shown = shown.into_iter().take(4).map(|c| Item { sql: c.sql, ty: c.ty, wild: c.wild }).collect();
            return self.finish(shown, &format!("FROM ({}) AS {outer} WHERE {rank} <= {n}", inner.sql), "SELECT");
        }
        if self.chance(0.4) {
            items.push(self.key(&scope));
        }
        if feature == "session" && call_partitions(&from) && !items.iter().any(|i| i.sql.ends_with(".ref")) {
            items.push(Item { sql: format!("{alias}.ref"), ty: Type::Int, wild: false });
        }
        let keys: Vec<String> = items.iter().map(|k| k.sql.clone()).collect();
        items.extend(self.calls(&scope, 3));
        let filter = self.filter(&scope, 0.3);
        let rest = format!("FROM {from} AS {alias}{filter} GROUP BY {}", keys.join(", "));
        self.finish(items, &rest, "SELECT")
    }

    pub(crate) fn recursive(&mut self) -> Query {
        self.uses("recursive cte");
        let at = self.rng.random_range(0..self.tables.len());
        let table = self.tables[at].clone();
        let from = self.rng.random_range(0..20);
        // From a row to the row that it refers to, a few steps far.
        let key = if table.columns[0].ty == Type::Int { table.columns[0].name.clone() } else { "ref + 1".to_owned() };
        let name = self.alias();
        let sql = format!(
            "WITH RECURSIVE {name} AS (SELECT ref AS n, 0 AS depth FROM {t} WHERE ref < {from} UNION ALL \
             SELECT t.ref, depth + 1 FROM {t} AS t JOIN {name} ON {name}.n = t.{key} WHERE depth < 3) \
             SELECT n AS c0, depth AS c1 FROM {name}",
            t = table.name,
        );
        let out = |name: &str| Out { name: name.to_owned(), ty: Type::Int, wild: false };
        Query { sql, columns: vec![out("c0"), out("c1")] }
    }
}

fn call_partitions(from: &str) -> bool {
    from.contains("PARTITION BY")
}
