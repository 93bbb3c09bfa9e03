//! Parquet: a document a row, in one column of strings; the other columns are not read.

use std::fs::File;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::{OnEvent, Reader};
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
        let failed = |what: String, error: ParquetError| {
            Error::data(path, what, "a Parquet file", error.to_string())
        };
        let whole = |error| failed("content".into(), error);
        let reader = SerializedFileReader::new(file).map_err(whole)?;
        let metadata = reader.metadata().file_metadata();
        let rows = metadata.num_rows().max(1) as f64;
        let fields = metadata.schema().get_fields();
        let Some(column) = fields.iter().find(|field| field.name() == key) else {
            let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            let expected = format!("a column `{key}` of strings");
            return Err(Error::data(path, "schema", expected, format!("the columns {names:?}")));
        };
        let projection = Type::group_type_builder(metadata.schema().name())
            .with_fields(vec![Arc::clone(column)])
            .build()
            .map_err(whole)?;
        for (row, number) in reader.get_row_iter(Some(projection)).map_err(whole)?.zip(1_u64..) {
            let what = format!("row {number}");
            let row = row.map_err(|error| failed(what.clone(), error))?;
            let read = (bytes as f64 * (number as f64 / rows)).min(bytes as f64) as u64;
            let field = row.get_column_iter().next().map(|(_, field)| field);
            let text = match field {
                Some(Field::Str(text)) => Ok(text.as_str()),
                Some(Field::Bytes(text)) => {
                    std::str::from_utf8(text.data()).map_err(|error| error.to_string())
                }
                Some(Field::Null) | None => Err("null".into()),
                Some(other) => Err(format!("`{other}`")),
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

#[cfg(test)]
mod tests {
    use super::super::tests::read_all;
    use super::super::{Malformed, ReadOptions};
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// A file of a number and a text, or null, in each row.
    fn file(texts: &[Option<&str>], compression: Compression) -> Vec<u8> {
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
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            let bytes = file(&[Some("one\ntwo"), Some(""), Some("東京")], compression);
            let found = documents(&bytes, "body", Malformed::Refuse).expect("good");
            assert_eq!(found, (vec!["one\ntwo".into(), String::new(), "東京".into()], 0));
        }
    }

    #[test]
    fn nulls_are_refused_by_row_or_skipped_and_other_columns_named() {
        let bytes = file(&[Some("a"), None, Some("b")], Compression::SNAPPY);
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
}
