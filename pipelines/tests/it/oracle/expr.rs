//! Random typed expressions that cannot fail: what they compute is decided by their input alone.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::data::{TableSpec, Type, WORDS};

/// A column that an expression may name.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) sql: String,
    pub(crate) ty: Type,
    pub(crate) wild: bool,
}

/// A column of a query's result.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) wild: bool,
}

/// An expression with what is known of its value.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) sql: String,
    pub(crate) ty: Type,
    pub(crate) wild: bool,
}

/// Types that can be compared, grouped by and ordered by.
pub(crate) const PLAIN: [Type; 7] =
    [Type::Int, Type::Dec, Type::Double, Type::Text, Type::Bool, Type::Date, Type::Time];

/// Makes queries; remembers which features they use.
pub(crate) struct Grammar<'a> {
    pub(crate) rng: &'a mut StdRng,
    pub(crate) tables: &'a [TableSpec],
    pub(crate) views: Vec<(String, Vec<Out>)>,
    pub(crate) features: BTreeSet<&'static str>,
    pub(crate) n_aliases: usize,
    /// Only what other databases understand, and understand alike.
    pub(crate) portable: bool,
    /// SELECTs made so far, over all views.
    pub(crate) n_queries: usize,
}

impl Grammar<'_> {
    pub(crate) fn uses(&mut self, feature: &'static str) {
        self.features.insert(feature);
    }

    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(self.rng).expect("there is something to choose from")
    }

    pub(crate) fn alias(&mut self) -> String {
        self.n_aliases += 1;
        format!("r{}", self.n_aliases)
    }

    /// A column of a type on which arithmetic is safe.
    pub(crate) fn tame(&mut self, scope: &[Column], ty: Type) -> Option<String> {
        let fitting: Vec<&Column> = scope.iter().filter(|c| c.ty == ty && !c.wild).collect();
        fitting.choose(self.rng).map(|c| c.sql.clone())
    }

    /// Any column that can be compared.
    pub(crate) fn plain_column(&mut self, scope: &[Column]) -> Column {
        let fitting: Vec<&Column> = scope.iter().filter(|c| PLAIN.contains(&c.ty)).collect();
        (*fitting.choose(self.rng).expect("every relation has a plain column")).clone()
    }

    pub(crate) fn literal(&mut self, ty: Type) -> String {
        match ty {
            Type::Int => self.rng.random_range(-2..12).to_string(),
            Type::Dec => format!("CAST('{}' AS DECIMAL(8, 2))", self.one(&["0", "12.50", "-3.25", "250", "0.01"])),
            Type::Double => self.one(&["0.5", "1.25", "12.0", "-3.1"]).to_owned(),
            Type::Text => format!("'{}'", self.one(&WORDS).replace('\'', "''")),
            Type::Bool => self.one(&["TRUE", "FALSE"]).to_owned(),
            Type::Date => {
                format!("DATE '2025-{:02}-{:02}'", self.rng.random_range(7..11), self.rng.random_range(1..29))
            }
            Type::Time => format!(
                "TIMESTAMP '2025-{:02}-{:02} 06:30:00'",
                self.rng.random_range(9..11),
                self.rng.random_range(1..29)
            ),
            Type::Fuzzy | Type::List => unreachable!("no literal is of this type"),
        }
    }

    /// An expression of a plain type over the scope.
    pub(crate) fn value(&mut self, scope: &[Column], ty: Type, depth: usize) -> String {
        let leaf = self.tame(scope, ty);
        if depth == 0 || self.chance(0.3) {
            return match leaf {
                Some(column) if self.chance(0.93) => column,
                _ => self.literal(ty),
            };
        }
        let d = depth - 1;
        match self.rng.random_range(0..8) {
            0 => {
                self.uses("case");
                let (when, a, b) = (self.boolean(scope, d), self.value(scope, ty, d), self.value(scope, ty, d));
                match self.chance(0.3) {
                    true => format!("CASE WHEN {when} THEN {a} END"),
                    false => format!("CASE WHEN {when} THEN {a} ELSE {b} END"),
                }
            }
            1 => {
                self.uses("coalesce");
                let (a, b) = (self.value(scope, ty, d), self.value(scope, ty, d));
                format!("COALESCE({a}, {b})")
            }
            2 => {
                self.uses("nullif");
                let (a, b) = (self.value(scope, ty, d), self.value(scope, ty, 0));
                format!("NULLIF({a}, {b})")
            }
            _ => self.computed(scope, ty, d),
        }
    }

    fn computed(&mut self, scope: &[Column], ty: Type, d: usize) -> String {
        match ty {
            Type::Int => self.integer(scope, d),
            Type::Dec => {
                let (a, b) = (self.value(scope, ty, d), self.value(scope, ty, 0));
                match self.rng.random_range(0..7) {
                    0 => format!("({a} + {b})"),
                    1 => format!("({a} - {b})"),
                    2 => format!("({a} * 2)"),
                    3 => format!("abs({a})"),
                    4 => format!("(- {a})"),
                    5 => {
                        self.uses("cast");
                        format!("CAST({} AS DECIMAL(20, 2))", self.value(scope, Type::Int, 0))
                    }
                    _ => {
                        self.uses("cast");
                        format!("CAST({a} AS DECIMAL(24, 1))")
                    }
                }
            }
            Type::Double => match self.rng.random_range(0..4) {
                0 => format!("({} * 0.5)", self.value(scope, ty, d)),
                1 => format!("({} + {})", self.value(scope, ty, d), self.value(scope, ty, 0)),
                2 => format!("CAST({} AS DOUBLE)", self.value(scope, Type::Int, d)),
                _ => format!("CAST({} AS DOUBLE)", self.value(scope, Type::Dec, 0)),
            },
            Type::Text => self.text(scope, d),
            Type::Bool => format!("({})", self.boolean(scope, d)),
            Type::Date => match self.rng.random_range(0..3) {
                0 => format!("CAST({} AS DATE)", self.value(scope, Type::Time, 0)),
                1 => format!("CAST({} + INTERVAL '3' DAY AS DATE)", self.value(scope, ty, d)),
                _ => format!("CAST({} - INTERVAL '1' MONTH AS DATE)", self.value(scope, ty, d)),
            },
            Type::Time => {
                let time = self.value(scope, ty, d);
                self.uses("time arithmetic");
                match self.rng.random_range(0..6) {
                    4 => {
                        self.uses("interval arithmetic");
                        format!("({time} + INTERVAL '1 02:03:04' DAY TO SECOND)")
                    }
                    5 => {
                        self.uses("interval arithmetic");
                        format!("({time} - {} * INTERVAL '3' HOUR)", self.rng.random_range(-2..4))
                    }
                    0 => format!("date_trunc('{}', {time})", self.one(&["hour", "day", "month", "week", "year"])),
                    1 => format!("({time} + INTERVAL '90' MINUTE)"),
                    2 => format!("({time} - INTERVAL '2' DAY)"),
                    _ => format!("CAST({} AS TIMESTAMP)", self.value(scope, Type::Date, 0)),
                }
            }
            Type::Fuzzy | Type::List => unreachable!("only aggregates make these"),
        }
    }

    fn integer(&mut self, scope: &[Column], d: usize) -> String {
        let (a, b) = (self.value(scope, Type::Int, d), self.value(scope, Type::Int, 0));
        match self.rng.random_range(0..10) {
            0 | 1 => format!("({a} + {b})"),
            2 => format!("({a} - {b})"),
            3 => format!("({a} * 3)"),
            4 => {
                self.uses("integer division");
                format!("({a} / NULLIF({b}, 0))")
            }
            5 => {
                self.uses("integer division");
                format!("({a} % NULLIF({b}, 0))")
            }
            6 => format!("CAST(char_length({}) AS BIGINT)", self.value(scope, Type::Text, d)),
            7 => {
                self.uses("extract");
                let part = self.one(&["YEAR", "MONTH", "DAY", "HOUR"]);
                format!("CAST(EXTRACT({part} FROM {}) AS BIGINT)", self.value(scope, Type::Time, 0))
            }
            // Other databases round here; Flink and DataFusion cut off.
            8 if !self.portable => {
                self.uses("cast");
                format!("CAST({} AS BIGINT)", self.value(scope, Type::Dec, 0))
            }
            _ => format!("abs({a})"),
        }
    }

    fn text(&mut self, scope: &[Column], d: usize) -> String {
        let a = self.value(scope, Type::Text, d);
        self.uses("text functions");
        match self.rng.random_range(0..10) {
            0 => format!("upper({a})"),
            1 => format!("lower({a})"),
            2 => format!("trim({a})"),
            3 => format!("({a} || {})", self.value(scope, Type::Text, 0)),
            4 => format!("concat({a}, '-', {})", self.value(scope, Type::Int, 0)),
            5 => format!("substr({a}, 2, 2)"),
            6 => format!("replace({a}, 'b', 'x')"),
            7 => format!("CAST({} AS VARCHAR)", self.value(scope, Type::Int, 0)),
            8 => format!("CAST({} AS VARCHAR)", self.value(scope, Type::Date, 0)),
            _ => format!("left({a}, 2)"),
        }
    }

    /// One of these types of which the scope has a column, if it has any.
    pub(crate) fn present(&mut self, scope: &[Column], types: &[Type]) -> Type {
        let there: Vec<Type> =
            types.iter().copied().filter(|ty| scope.iter().any(|c| c.ty == *ty && !c.wild)).collect();
        if there.is_empty() { self.one(types) } else { self.one(&there) }
    }

    /// A condition without subqueries.
    pub(crate) fn boolean(&mut self, scope: &[Column], depth: usize) -> String {
        if depth > 0 && self.chance(0.3) {
            let a = self.boolean(scope, depth - 1);
            return match self.rng.random_range(0..4) {
                0 => format!("NOT ({a})"),
                1 => format!("({a} OR {})", self.boolean(scope, depth - 1)),
                _ => format!("({a} AND {})", self.boolean(scope, depth - 1)),
            };
        }
        let d = depth.saturating_sub(1);
        match self.rng.random_range(0..11) {
            9 => self.similar(scope, d),
            10 => self.row_comparison(scope),
            0 => {
                let column = self.plain_column(scope);
                self.uses("is null");
                format!("{} IS {}NULL", column.sql, self.one(&["", "NOT "]))
            }
            1 => {
                self.uses("between");
                let ty = self.present(scope, &[Type::Int, Type::Date, Type::Time, Type::Dec]);
                let (a, lo, hi) = (self.value(scope, ty, d), self.literal(ty), self.literal(ty));
                format!("{a} {}BETWEEN {lo} AND {hi}", self.one(&["", "NOT "]))
            }
            2 => {
                self.uses("in list");
                let ty = self.present(scope, &[Type::Int, Type::Text, Type::Date]);
                let (a, x, y) = (self.value(scope, ty, d), self.literal(ty), self.literal(ty));
                let null = if self.chance(0.1) { ", NULL" } else { "" };
                format!("{a} {}IN ({x}, {y}{null})", self.one(&["", "NOT "]))
            }
            3 => {
                self.uses("like");
                let a = self.value(scope, Type::Text, d);
                let pattern = self.one(&["a%", "%b%", "_b", "%", "", "%ö", "%\\_%"]);
                format!("{a} {}LIKE '{pattern}'", self.one(&["", "NOT "]))
            }
            4 => {
                self.uses("is distinct from");
                let column = self.plain_column(scope);
                let other = self.value(scope, column.ty, 0);
                format!("{} IS {}DISTINCT FROM {other}", column.sql, self.one(&["", "NOT "]))
            }
            5 => match self.tame(scope, Type::Bool) {
                Some(column) => format!("{column}{}", self.one(&["", " IS TRUE", " IS NOT FALSE"])),
                None => "TRUE".to_owned(),
            },
            // A wild value too may be compared.
            6 => {
                let column = self.plain_column(scope);
                let other = self.literal(column.ty);
                format!("{} {} {other}", column.sql, self.one(&["=", "<>", "<", ">="]))
            }
            _ => {
                let ty = self.present(scope, &PLAIN);
                let a = self.value(scope, ty, d);
                let b = if self.chance(0.5) { self.literal(ty) } else { self.value(scope, ty, d) };
                format!("{a} {} {b}", self.one(&["=", "<>", "<", "<=", ">", ">=", "<>", ">="]))
            }
        }
    }

    fn similar(&mut self, scope: &[Column], d: usize) -> String {
        self.uses("similar to");
        let a = self.value(scope, Type::Text, d);
        let pattern = self.one(&["a%", "%(b|x)%", "_+", "[a-c]*", "(ab|b)_"]);
        format!("{a} {}SIMILAR TO '{pattern}'", self.one(&["", "NOT "]))
    }

    fn row_comparison(&mut self, scope: &[Column]) -> String {
        self.uses("row comparison");
        let (s, t) = (self.present(scope, &[Type::Int, Type::Text]), self.present(scope, &[Type::Date, Type::Int]));
        let (a, b) = (self.value(scope, s, 0), self.value(scope, t, 0));
        let (c, e) = (self.value(scope, s, 0), self.literal(t));
        match self.chance(0.3) {
            true => {
                format!("({a}, {b}) {}IN (({c}, {e}), ({}, {e}))", self.one(&["", "NOT "]), self.literal(s))
            }
            false => format!("({a}, {b}) {} ({c}, {e})", self.one(&["=", "<>", "<", ">="])),
        }
    }

    /// An argument of an aggregate. DataFusion takes `sum(x)` and `sum(CAST(x AS …))` for one column.
    fn argument(&mut self, scope: &[Column], ty: Type) -> String {
        let made = self.value(scope, ty, 1);
        if made.starts_with("CAST(") { self.value(scope, ty, 0) } else { made }
    }

    /// An aggregate call over the scope.
    pub(crate) fn aggregate(&mut self, scope: &[Column]) -> Item {
        let item = |sql: String, ty| Item { sql, ty, wild: false };
        let kind = self.rng.random_range(0..25);
        if self.portable && [17, 18, 20].contains(&kind) {
            return Item { sql: "count(*)".to_owned(), ty: Type::Int, wild: false };
        }
        let mut made = match kind {
            0 | 1 => item("count(*)".to_owned(), Type::Int),
            2 => item(format!("count({})", self.plain_column(scope).sql), Type::Int),
            3 | 4 => {
                self.uses("count distinct");
                item(format!("count(DISTINCT {})", self.plain_column(scope).sql), Type::Int)
            }
            5 | 6 => item(format!("sum({})", self.argument(scope, Type::Int)), Type::Int),
            7 | 8 => item(format!("sum({})", self.argument(scope, Type::Dec)), Type::Dec),
            9 => {
                self.uses("sum distinct");
                item(format!("sum(DISTINCT {})", self.value(scope, Type::Int, 0)), Type::Int)
            }
            10 => item(format!("avg({})", self.argument(scope, Type::Dec)), Type::Dec),
            11 => item(format!("avg({})", self.argument(scope, Type::Int)), Type::Fuzzy),
            12 => item(format!("sum({})", self.argument(scope, Type::Double)), Type::Fuzzy),
            13..16 => {
                self.uses("min and max");
                let column = self.plain_column(scope);
                let function = match (self.portable, column.ty) {
                    (true, Type::Bool) => "bool_or",
                    _ => self.one(&["min", "max"]),
                };
                return Item { sql: format!("{function}({})", column.sql), ty: column.ty, wild: column.wild };
            }
            16 => {
                self.uses("variance");
                let function = self.one(&["stddev", "stddev_pop", "var_pop", "var_samp"]);
                item(format!("{function}({})", self.value(scope, Type::Double, 0)), Type::Fuzzy)
            }
            17 => {
                self.uses("median and percentiles");
                let x = self.value(scope, Type::Double, 0);
                match self.chance(0.5) {
                    true => item(format!("median({x})"), Type::Fuzzy),
                    false => item(format!("percentile_cont(0.25) WITHIN GROUP (ORDER BY {x})"), Type::Fuzzy),
                }
            }
            18 => {
                self.uses("approx_distinct");
                let ty = self.one(&[Type::Int, Type::Text]);
                item(format!("CAST(approx_distinct({}) AS BIGINT)", self.value(scope, ty, 0)), Type::Int)
            }
            19 => {
                self.uses("bool and bit aggregates");
                let (b, i) = (self.boolean(scope, 1), self.value(scope, Type::Int, 0));
                match self.rng.random_range(0..4) {
                    0 => item(format!("bool_and({b})"), Type::Bool),
                    1 => item(format!("bool_or({b})"), Type::Bool),
                    2 => item(format!("bit_or({i})"), Type::Int),
                    _ => item(format!("bit_xor({i})"), Type::Int),
                }
            }
            20 => return self.first_or_last(scope),
            22..25 => return self.of_pairs_or_ordered(scope, kind),
            _ => self.collected(scope),
        };
        if self.chance(0.25) && !made.sql.starts_with("CAST") && made.ty != Type::List {
            self.uses("filter");
            made.sql = format!("{} FILTER (WHERE {})", made.sql, self.boolean(scope, 1));
        }
        // A sum of integers is a decimal elsewhere, and an average of decimals has other digits.
        match (self.portable, made.ty) {
            (true, Type::Int) => made.sql = format!("CAST({} AS BIGINT)", made.sql),
            (true, Type::Dec) if made.sql.starts_with("avg") => made.ty = Type::Fuzzy,
            _ => {}
        }
        made
    }

    fn of_pairs_or_ordered(&mut self, scope: &[Column], kind: i32) -> Item {
        match kind {
            22 => {
                self.uses("pairs and regression");
                let (y, x) = (self.value(scope, Type::Double, 0), self.value(scope, Type::Double, 0));
                let function = self.one(&["corr", "covar_pop", "covar_samp", "regr_count", "regr_avgx", "regr_sxy"]);
                let ty = if function == "regr_count" { Type::Int } else { Type::Fuzzy };
                Item { sql: format!("{function}({y}, {x})"), ty, wild: false }
            }
            24 if !self.portable && self.chance(0.4) => {
                self.uses("nth value");
                let (column, n) = (self.plain_column(scope), self.one(&[1, 2, 5, -2]));
                let sql = format!("nth_value({}, {n} ORDER BY {} {})", column.sql, column.sql, self.direction());
                Item { sql, ty: column.ty, wild: column.wild }
            }
            _ => {
                self.uses("percentile_disc and mode");
                let (column, direction) = (self.plain_column(scope), self.one(&["ASC", "DESC"]));
                let share = self.one(&["0.0", "0.3", "0.5", "0.9", "1.0"]);
                let sql = match self.chance(0.5) {
                    true => format!("percentile_disc({share}) WITHIN GROUP (ORDER BY {} {direction})", column.sql),
                    false => format!("mode() WITHIN GROUP (ORDER BY {} {direction})", column.sql),
                };
                Item { sql, ty: column.ty, wild: column.wild }
            }
        }
    }

    fn first_or_last(&mut self, scope: &[Column]) -> Item {
        self.uses("first and last value");
        let (of, by) = (self.plain_column(scope), self.plain_column(scope));
        let function = self.one(&["first_value", "last_value"]);
        let (by_order, of_order) = (self.direction(), self.direction());
        // DataFusion fails on an order that names a column twice.
        let order = match of.sql == by.sql {
            true => format!("{} {by_order}", of.sql),
            false => format!("{} {by_order}, {} {of_order}", by.sql, of.sql),
        };
        let sql = format!("{function}({} ORDER BY {order})", of.sql);
        Item { sql, ty: of.ty, wild: of.wild }
    }

    fn collected(&mut self, scope: &[Column]) -> Item {
        self.uses("array_agg and string_agg");
        let direction = self.direction();
        if self.chance(0.5) {
            let text = self.value(scope, Type::Text, 0);
            let text = if text.starts_with('\'') { format!("upper({text})") } else { text };
            let sql = format!("string_agg({text}, ';' ORDER BY {text} {direction})");
            return Item { sql, ty: Type::Text, wild: false };
        }
        let column = self.plain_column(scope);
        let distinct = if self.chance(0.3) { "DISTINCT " } else { "" };
        let sql = format!("array_agg({distinct}{} ORDER BY {} {direction})", column.sql, column.sql);
        Item { sql, ty: Type::List, wild: false }
    }

    /// A stated order; where NULLs go differs between engines unless it is said.
    pub(crate) fn direction(&mut self) -> &'static str {
        self.one(&["ASC NULLS FIRST", "DESC NULLS LAST", "ASC NULLS LAST", "DESC NULLS FIRST"])
    }
}
