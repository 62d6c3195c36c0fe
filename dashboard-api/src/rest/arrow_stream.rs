//! A view's JSON rows as an Arrow IPC stream, with the column types that the catalog gives: decimals exact, timestamps
//! as such.

use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::ReaderBuilder;
use bytes::Bytes;
use model::ViewInfo;

/// Rows in one record batch.
const BATCH_ROWS: usize = 8_192;

/// Encodes rows, each a JSON object with the view's columns.
///
/// # Errors
/// If a column's type is not one of Arrow's, or a row does not fit it.
pub(crate) fn encode(info: &ViewInfo, rows: &[Bytes]) -> Result<Vec<u8>, ArrowError> {
    let fields: Result<Vec<Field>, ArrowError> = info
        .columns
        .iter()
        .map(|column| {
            let data_type = DataType::from_str(&column.data_type)?;
            Ok(Field::new(&column.name, plain(data_type), column.nullable))
        })
        .collect();
    let schema = Arc::new(Schema::new(fields?));
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(BATCH_ROWS).build_decoder()?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for row in rows {
        let mut rest = &row[..];
        while !rest.is_empty() {
            let n_read = decoder.decode(rest)?;
            rest = &rest[n_read..];
            if n_read == 0
                && let Some(batch) = decoder.flush()?
            {
                writer.write(&batch)?;
            }
        }
    }
    if let Some(batch) = decoder.flush()? {
        writer.write(&batch)?;
    }
    writer.into_inner()
}

/// Dictionaries are a matter of the engine's memory; readers get the values.
fn plain(data_type: DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => *values,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::ipc::reader::StreamReader;
    use arrow::util::pretty::pretty_format_batches;
    use expect_test::expect;
    use model::ViewKind;
    use model::view::ViewColumn;

    fn info(columns: &[(&str, DataType)]) -> ViewInfo {
        let column = |(name, data_type): &(&str, DataType)| ViewColumn {
            name: (*name).to_owned(),
            data_type: data_type.to_string(),
            nullable: true,
        };
        ViewInfo {
            name: "v".to_owned(),
            kind: ViewKind::View,
            topic: "andon.view.v".to_owned(),
            columns: columns.iter().map(column).collect(),
            key: vec![],
            description: None,
            sql: String::new(),
            empty_inputs: vec![],
            maintenance: "incremental".to_owned(),
        }
    }

    #[test]
    fn types_are_those_of_the_catalog() {
        use arrow::datatypes::TimeUnit::Microsecond;
        let info = info(&[
            ("amount", DataType::Decimal128(20, 2)),
            ("n", DataType::Int64),
            ("day", DataType::Date32),
            ("at", DataType::Timestamp(Microsecond, Some("UTC".into()))),
            ("local_at", DataType::Timestamp(Microsecond, None)),
            ("name", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))),
            ("text", DataType::Utf8View),
            ("yes", DataType::Boolean),
            ("ratio", DataType::Float64),
        ]);
        let rows = [
            Bytes::from_static(br#"{"amount":"12345678901234567.89","n":1,"day":"2025-10-01","at":"2025-10-01T05:00:00.000001Z","local_at":"2025-10-01T05:00:00.000000","name":"a","text":"b","yes":true,"ratio":0.5}"#),
            Bytes::from_static(br#"{"amount":"-0.10","n":null}"#),
        ];
        let bytes = encode(&info, &rows).expect("rows fit");
        let batches: Result<Vec<_>, _> = StreamReader::try_new(&bytes[..], None).expect("a stream").collect();
        let batches = batches.expect("batches");
        assert_eq!(batches[0].schema().field(0).data_type(), &DataType::Decimal128(20, 2));
        expect![[r#"
            +----------------------+---+------------+-----------------------------+---------------------+------+------+------+-------+
            | amount               | n | day        | at                          | local_at            | name | text | yes  | ratio |
            +----------------------+---+------------+-----------------------------+---------------------+------+------+------+-------+
            | 12345678901234567.89 | 1 | 2025-10-01 | 2025-10-01T05:00:00.000001Z | 2025-10-01T05:00:00 | a    | b    | true | 0.5   |
            | -0.10                |   |            |                             |                     |      |      |      |       |
            +----------------------+---+------------+-----------------------------+---------------------+------+------+------+-------+"#]].assert_eq(&pretty_format_batches(&batches).expect("text").to_string());
    }

    #[test]
    fn many_rows_take_several_batches() {
        let rows: Vec<Bytes> = (0..20_000).map(|n| Bytes::from(format!(r#"{{"n":{n}}}"#))).collect();
        let bytes = encode(&info(&[("n", DataType::Int64)]), &rows).expect("rows fit");
        let batches: Result<Vec<_>, _> = StreamReader::try_new(&bytes[..], None).expect("a stream").collect();
        let sizes: Vec<usize> = batches.expect("batches").iter().map(|b| b.num_rows()).collect();
        assert_eq!(sizes, [8_192, 8_192, 3_616]);
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error() {
        assert!(encode(&info(&[("n", DataType::Int64)]), &[Bytes::from_static(br#"{"n":"x"}"#)]).is_err());
    }
}
