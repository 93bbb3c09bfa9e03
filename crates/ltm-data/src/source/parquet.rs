//! Parquet: one document per row, in one column of strings; the other columns are not read.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::{OnEvent, Reader};
use crate::guard::guarded;
use crate::{Error, Result};

impl Reader<'_> {
    pub(super) fn parquet(
        &mut self,
        file: File,
        bytes: u64,
        key: &str,
        on_event: &mut OnEvent<'_>,
    ) -> Result<()> {
        let path = self.path;
        let failed =
            |what: String, found: String| Error::content(path, what, "a Parquet file", found);
        let whole = |found| failed("content".into(), found);
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(whole)?;
        let metadata = reader.metadata().file_metadata();
        let rows = metadata.num_rows().max(1) as f64;
        let fields = metadata.schema().get_fields();
        let Some(column) = fields.iter().find(|field| field.name() == key) else {
            let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            let expected = format!("a column `{key}` of strings");
            return Err(Error::content(path, "schema", expected, format!("the columns {names:?}")));
        };
        if let Some(codec) = unsupported(reader.metadata(), key) {
            let found =
                format!("{codec}, which this build cannot read; write the file with another one");
            return Err(Error::content(path, "compression", SUPPORTED, found));
        }
        let rows_of = || {
            let projection = Type::group_type_builder(metadata.schema().name())
                .with_fields(vec![Arc::clone(column)])
                .build()?;
            reader.get_row_iter(Some(projection))
        };
        let mut iterator = guarded(rows_of).map_err(whole)?;
        for number in 1_u64.. {
            let what = format!("row {number}");
            let row = match guarded(|| iterator.next().transpose()) {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(found) => return Err(failed(what, found)),
            };
            let read = (bytes as f64 * (number as f64 / rows)).min(bytes as f64) as u64;
            let field = row.get_column_iter().next().map(|(_, field)| field);
            let text = match field {
                Some(Field::Str(text)) => Ok(text.as_str()),
                Some(Field::Bytes(text)) => {
                    std::str::from_utf8(text.data()).map_err(|error| error.to_string())
                }
                Some(Field::Null) | None => Err("null".into()),
                Some(other) => Err(format!("`{}`", beginning(&other.to_string()))),
            };
            match text {
                Ok(text) => {
                    if Self::document(text, read, on_event)?.is_break() {
                        return Ok(());
                    }
                }
                Err(found) => self.refuse(what, &format!("a string in column `{key}`"), found)?,
            }
        }
        Ok(())
    }
}

/// What an error shows of a long value.
fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}

const SUPPORTED: &str =
    "none, snappy, gzip, lz4, zstd (feature `parquet-zstd`) or brotli (feature `parquet-brotli`)";

/// A compression of the column `key` that this build cannot read.
fn unsupported(metadata: &ParquetMetaData, key: &str) -> Option<&'static str> {
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    columns
        .filter(|column| column.column_path().parts().first().is_some_and(|name| name == key))
        .find_map(|column| match column.compression() {
            Compression::LZO => Some("LZO"),
            Compression::ZSTD(_) if !cfg!(feature = "parquet-zstd") => Some("zstd"),
            Compression::BROTLI(_) if !cfg!(feature = "parquet-brotli") => Some("brotli"),
            _ => None,
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::read_all;
    use super::super::{Malformed, ReadOptions};
    use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// A file of a number and a text, or null, in each row.
    pub(crate) fn parquet_file(texts: &[Option<&str>], compression: Compression) -> Vec<u8> {
        let schema = "message m { required int32 id; optional binary body (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).expect("a schema"));
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut bytes = Vec::new();
        let mut writer =
            SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("no error").expect("id");
        let ids: Vec<i32> = (0..texts.len() as i32).collect();
        column.typed::<Int32Type>().write_batch(&ids, None, None).expect("written");
        column.close().expect("closed");
        let mut column = group.next_column().expect("no error").expect("body");
        let values: Vec<ByteArray> = texts.iter().flatten().map(|text| (*text).into()).collect();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        let column_writer = column.typed::<ByteArrayType>();
        column_writer.write_batch(&values, Some(&levels), None).expect("written");
        column.close().expect("closed");
        group.close().expect("closed");
        writer.close().expect("closed");
        bytes
    }

    fn documents(bytes: &[u8], key: &str, malformed: Malformed) -> Result<(Vec<String>, u64)> {
        let options = ReadOptions { format: None, key: Some(key.into()), malformed };
        read_all("a.parquet", bytes, options)
    }

    #[test]
    fn a_column_of_strings_is_a_document_a_row() {
        let mut all = vec![Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::LZ4_RAW];
        all.push(Compression::GZIP(Default::default()));
        if cfg!(feature = "parquet-zstd") {
            all.push(Compression::ZSTD(Default::default()));
        }
        if cfg!(feature = "parquet-brotli") {
            all.push(Compression::BROTLI(Default::default()));
        }
        for compression in all {
            let bytes = parquet_file(&[Some("one\ntwo"), Some(""), Some("東京")], compression);
            let found = documents(&bytes, "body", Malformed::Refuse).expect("good");
            assert_eq!(found, (vec!["one\ntwo".into(), String::new(), "東京".into()], 0));
        }
    }

    #[test]
    fn nulls_are_refused_by_row_or_skipped_and_other_columns_named() {
        let bytes = parquet_file(&[Some("a"), None, Some("b")], Compression::SNAPPY);
        let error = documents(&bytes, "body", Malformed::Refuse).expect_err("null").to_string();
        assert!(error.contains("row 2") && error.contains("null"), "{error}");
        let found = documents(&bytes, "body", Malformed::Skip).expect("skipped");
        assert_eq!(found, (vec!["a".into(), "b".into()], 1));
        let error = documents(&bytes, "text", Malformed::Skip).expect_err("no such").to_string();
        assert!(error.contains("`text`") && error.contains("\"body\""), "{error}");
        let error = documents(&bytes, "id", Malformed::Refuse).expect_err("numbers").to_string();
        assert!(error.contains("row 1") && error.contains("`0`"), "{error}");
        let error = documents(b"PAR1 not really", "text", Malformed::Skip).expect_err("no file");
        assert!(error.to_string().contains("a.parquet"), "{error}");
    }

    /// Damages each byte of a file in turn, also so that the library panics, as on `parquet_panic.parquet`.
    #[test]
    fn damaged_files_are_errors_that_name_the_file() {
        let good = parquet_file(&[Some("one"), Some("two"), None], Compression::SNAPPY);
        let mut refused = 0;
        for (at, bits) in (0..good.len()).flat_map(|at| [0x01, 0x80, 0xff].map(|bits| (at, bits))) {
            let mut bytes = good.clone();
            bytes[at] ^= bits;
            if let Err(error) = documents(&bytes, "body", Malformed::Skip) {
                assert!(error.to_string().contains("a.parquet"), "{error}");
                refused += 1;
            }
        }
        assert!(refused > 0);
    }
}
