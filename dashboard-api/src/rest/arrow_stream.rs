//! A view's JSON rows as an Arrow IPC stream.

use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use model::ViewInfo;

use crate::table::{Batches, schema};

/// Encodes rows, each a JSON object with the view's columns.
///
/// # Errors
/// If a column's type is not one of Arrow's, or a row does not fit it.
pub(crate) fn encode(info: &ViewInfo, rows: &[Bytes]) -> Result<Vec<u8>, ArrowError> {
    let schema = schema(info)?;
    let mut batches = Batches::new(&schema)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for row in rows {
        if let Some(batch) = batches.push(row)? {
            writer.write(&batch)?;
        }
    }
    if let Some(batch) = batches.finish()? {
        writer.write(&batch)?;
    }
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;
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
