//! What the fuzzer in `fuzz/` runs here: records as they come over the network. It panics where a rule is broken, and
//! returns whatever the bytes are.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use model::{Record, SourceTable, SqlFile};

use crate::decode::{Changes, Decoder};
use crate::table::TableState;

/// Bytes of one record.
const RECORD_BYTES_MAX: usize = 64 << 10;
const COLUMNS: &str = "id INT, n STRING, d DECIMAL(20, 2), t TIMESTAMP(6), day DATE, ok BOOLEAN, x DOUBLE, b BYTES, \
                       z TIMESTAMP_LTZ(3), tags ARRAY<STRING>";

static TABLES: LazyLock<Vec<SourceTable>> = LazyLock::new(|| {
    let with = |name: &str, key: &str, format: &str| {
        format!(
            "CREATE TABLE {name} ({COLUMNS}{key}) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = '{format}');"
        )
    };
    let key = ", PRIMARY KEY (id) NOT ENFORCED";
    let text = [
        with("keyed", key, "debezium-json"),
        with("wide", ", PRIMARY KEY (id, n) NOT ENFORCED", "debezium-json"),
        with("flat", key, "json"),
        with("appended", "", "json"),
    ];
    let file = SqlFile { path: "fuzz.sql".to_owned(), text: text.concat() };
    crate::ddl::parse_tables(&[file]).expect("the tables are sound")
});

/// A record, key and value separated by the first byte zero; decoded for tables of several kinds and put into them.
pub fn records(bytes: &[u8]) {
    let (key, value) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (&b""[..], bytes),
    };
    let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| Bytes::copy_from_slice(bytes));
    for table in TABLES.iter() {
        let mut decoder = Decoder::new(table, RECORD_BYTES_MAX);
        let mut changes = Changes::new(&table.schema);
        // Twice, since a decoder keeps the schema of a record for the next one.
        for offset in 0..2 {
            let (key, value) = (some(key), some(value));
            let record = Record { offset, timestamp_ms: 1_700_000_000_000, key, value, headers: Vec::new() };
            let before = changes.len();
            let decoded = decoder.decode(&Arc::from("t"), 0, &record, &mut changes);
            assert!(decoded.is_ok() || changes.len() == before, "a refused record leaves nothing");
            assert!(changes.columns.iter().all(|column| column.len() == changes.len()), "columns are of one length");
        }
        if !table.is_append_only() {
            let mut state = TableState::new(table);
            state.apply(&mut changes, i64::MAX).expect("changes fit a batch");
            state.rows().expect("what was taken in can be read");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    fn seeds() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/records");
        let files = std::fs::read_dir(folder).expect("the examples are there");
        files.map(|file| std::fs::read(file.expect("a file").path()).expect("it can be read")).collect()
    }

    proptest! {
        #[test]
        fn no_mutation_breaks_the_decoder(
            which in any::<usize>(),
            edits in proptest::collection::vec((any::<usize>(), 0..12_usize, proptest::collection::vec(any::<u8>(), 0..6)), 0..4),
        ) {
            let seeds = seeds();
            let mut bytes = seeds[which % seeds.len()].clone();
            for (at, n_removed, inserted) in edits {
                let at = at % (bytes.len() + 1);
                bytes.splice(at..(at + n_removed).min(bytes.len()), inserted);
            }
            super::records(&bytes);
        }
    }
}
