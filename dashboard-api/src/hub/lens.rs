//! What one group of subscribers sees of a view: the rows that pass its filters, and of those the columns asked for.
//!
//! A filter is a SQL condition over the view's columns, compiled once and evaluated once per change for all who share
//! it. A role's rule is one more, which the client can neither see nor leave out.

use std::sync::Arc;

use bytes::Bytes;
use model::ViewInfo;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::auth::{RowFilter, RowRule};
use crate::protocol::ErrorCode;

/// Longest condition that is looked at.
const FILTER_BYTES_MAX: usize = 2 << 10;
/// Columns that may be asked for.
const COLUMNS_MAX: usize = 256;

/// What a subscriber asks for in the `data` of its subscription; empty for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LensSpec {
    /// A SQL condition over the view's columns.
    pub(crate) filter: Option<String>,
    /// The columns to send; key columns always are.
    pub(crate) columns: Option<Vec<String>>,
    /// What the subscriber's roles let it see: never from the client.
    #[serde(skip)]
    pub(crate) rule: Option<Arc<RowRule>>,
}

impl LensSpec {
    /// Reads the `data` of a subscription.
    ///
    /// # Errors
    /// [`ErrorCode::BAD_REQUEST`] if it is of another form or too long.
    pub(crate) fn parse(data: &[u8]) -> Result<Self, ErrorCode> {
        if data.is_empty() || data == b"null" {
            return Ok(Self::default());
        }
        let spec: Self = serde_json::from_slice(data).map_err(|_| ErrorCode::BAD_REQUEST)?;
        let filter_bytes = spec.filter.as_ref().map_or(0, String::len);
        let n_columns = spec.columns.as_ref().map_or(0, Vec::len);
        match filter_bytes <= FILTER_BYTES_MAX && n_columns <= COLUMNS_MAX {
            true => Ok(spec),
            false => Err(ErrorCode::BAD_REQUEST),
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A compiled [`LensSpec`].
#[derive(Debug)]
pub(crate) struct Lens {
    /// Equal for lenses through which the same is seen.
    pub(crate) key: Arc<str>,
    filters: Vec<RowFilter>,
    /// Names of the columns that are sent; `None` for all.
    columns: Option<Vec<String>>,
    /// Whether rows are withheld from the subscriber by right and not by its own wish.
    pub(crate) is_restricted: bool,
    /// Whether the subscriber wished for some of it: such lenses are as many as clients like.
    pub(crate) is_of_client: bool,
}

impl Lens {
    /// # Errors
    /// [`ErrorCode::BAD_REQUEST`] if the condition does not fit the view, or a column is not there.
    pub(crate) fn compile(info: &ViewInfo, spec: &LensSpec) -> Result<Self, ErrorCode> {
        let refused = |error: crate::auth::RowFilterError| {
            tracing::debug!(view = info.name, %error, "refused a subscription's filter");
            ErrorCode::BAD_REQUEST
        };
        let mut filters = Vec::new();
        if let Some(rule) = &spec.rule {
            let filter = RowFilter::of_rule(info, rule).map_err(|error| {
                tracing::warn!(view = info.name, %error, "a role's row rule does not fit the view: nobody sees a row");
                ErrorCode::PERMISSION_DENIED
            });
            filters.push(filter?);
        }
        if let Some(filter) = &spec.filter {
            filters.push(RowFilter::of_client(info, filter).map_err(refused)?);
        }
        let has = |name: &String| info.columns.iter().any(|column| column.name == *name);
        let columns = match &spec.columns {
            Some(wanted) if !wanted.iter().all(has) => return Err(ErrorCode::BAD_REQUEST),
            Some(wanted) => {
                let is_sent = |name: &String| wanted.contains(name) || info.key.contains(name);
                Some(info.columns.iter().map(|c| c.name.clone()).filter(is_sent).collect())
            }
            None => None,
        };
        let keys: Vec<&str> = filters.iter().map(|filter| &**filter.key()).collect();
        let key = Arc::from(format!("{} {keys:?} {columns:?}", spec.rule.is_some()));
        let is_of_client = spec.filter.is_some() || spec.columns.is_some();
        Ok(Self { key, filters, columns, is_restricted: spec.rule.is_some(), is_of_client })
    }

    /// Which of the rows are seen. A row on which a condition fails or is unknown is not.
    pub(crate) fn matches(&self, rows: &[Bytes]) -> Vec<bool> {
        let mut seen = vec![true; rows.len()];
        let rows: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
        for filter in &self.filters {
            for (seen, passes) in seen.iter_mut().zip(filter.matches(&rows)) {
                *seen &= passes;
            }
        }
        seen
    }

    /// The row with the columns that are sent.
    pub(crate) fn project(&self, row: &Bytes) -> Bytes {
        let Some(columns) = &self.columns else { return row.clone() };
        let Ok(values) = serde_json::from_slice::<std::collections::BTreeMap<&str, &RawValue>>(row) else {
            return row.clone();
        };
        let mut out = Vec::with_capacity(row.len());
        for column in columns {
            let Some(value) = values.get(column.as_str()) else { continue };
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.extend_from_slice(serde_json::Value::from(column.as_str()).to_string().as_bytes());
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.extend_from_slice(if out.is_empty() { b"{}" } else { b"}" });
        Bytes::from(out)
    }

    /// Whether a column is sent.
    pub(crate) fn sends(&self, column: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|sent| sent == column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::view::ViewColumn;

    fn info() -> ViewInfo {
        let column = |(name, data_type): &(&str, &str)| ViewColumn {
            name: (*name).to_owned(),
            data_type: (*data_type).to_owned(),
            nullable: true,
        };
        let columns = [("id", "Int64"), ("region", "Utf8"), ("amount", "Decimal128(20, 2)"), ("day", "Date32")];
        ViewInfo { columns: columns.iter().map(column).collect(), ..crate::fixtures::view_info("v") }
    }

    fn rows() -> Vec<Bytes> {
        [
            r#"{"id":1,"region":"north","amount":"0.10","day":"2025-10-01"}"#,
            r#"{"id":2,"region":"south","amount":"0.30","day":"2025-10-02"}"#,
            r#"{"id":3,"region":null,"amount":null,"day":null}"#,
        ]
        .map(|row| Bytes::from_static(row.as_bytes()))
        .to_vec()
    }

    #[test]
    fn a_lens_sends_the_columns_asked_for_and_the_key() {
        let spec = LensSpec::parse(br#"{"filter":"id < 3","columns":["amount"]}"#).expect("of the form");
        let lens = Lens::compile(&info(), &spec).expect("it fits");
        assert_eq!(lens.matches(&rows()), [true, true, false]);
        assert_eq!(lens.project(&rows()[0]), r#"{"id":1,"amount":"0.10"}"#);
        for bad in [
            r#"{"columns":["nosuch"]}"#,
            r#"{"filter":"nosuch = 1"}"#,
            r#"{"filter":"id = (SELECT 1)"}"#,
            r#"{"filter":"replace(region, 'n', 'nn') = ''"}"#,
        ] {
            let spec = LensSpec::parse(bad.as_bytes()).expect("of the form");
            assert!(Lens::compile(&info(), &spec).is_err(), "{bad}");
        }
        for bad in [r#"{"rule":"true"}"#, "5", r#"{"filter":5}"#] {
            assert!(LensSpec::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(LensSpec::parse(b"").expect("empty").is_plain());
    }
}
