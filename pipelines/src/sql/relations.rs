//! The relations that a query reads, without the names that its own WITH clauses give.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visit, Visitor};

use super::ident_name;

/// Names of all tables and views that a query reads.
pub(crate) fn relation_names(query: &Query) -> BTreeSet<String> {
    let mut collector = Collector::default();
    // Nothing in the visitor breaks off, so the flow always goes on.
    match query.visit(&mut collector) {
        ControlFlow::Continue(()) | ControlFlow::Break(()) => collector.names,
    }
}

#[derive(Default)]
struct Collector {
    names: BTreeSet<String>,
    /// Names from WITH clauses that can be seen, a list for each query around the current one.
    visible: Vec<Vec<String>>,
    /// The name that a query gets once it has been read, by the query's address.
    naming: HashMap<*const Query, String>,
}

impl Visitor for Collector {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let mut visible = Vec::new();
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = ident_name(&table.alias.name);
            if query.with.as_ref().is_some_and(|with| with.recursive) {
                visible.push(name.clone());
            }
            self.naming.insert(&raw const *table.query, name);
        }
        self.visible.push(visible);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.visible.pop();
        if let (Some(name), Some(around)) = (self.naming.remove(&(query as *const Query)), self.visible.last_mut()) {
            around.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.0.last().and_then(|p| p.as_ident()).map(ident_name);
        self.names.extend(name.filter(|n| !self.visible.iter().flatten().any(|v| v == n)));
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::relation_names;

    fn names(sql: &str) -> String {
        let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql).expect("tokens");
        let query = parser.parse_query().expect("a query");
        relation_names(&query).into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_of_with_clauses_do_not_count() {
        assert_eq!(names("WITH a AS (SELECT * FROM b) SELECT * FROM a JOIN C ON true"), "b c");
        assert_eq!(names("WITH a AS (SELECT * FROM a) SELECT * FROM a"), "a", "the body reads the table");
        assert_eq!(names("WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a"), "");
        assert_eq!(names("WITH a AS (SELECT * FROM x), b AS (SELECT * FROM a) SELECT * FROM b"), "x");
        assert_eq!(names("SELECT * FROM (WITH a AS (SELECT * FROM x) SELECT * FROM a) JOIN a ON true"), "a x");
        assert_eq!(names("SELECT id FROM x WHERE id IN (SELECT id FROM \"Y\")"), "Y x");
    }
}
