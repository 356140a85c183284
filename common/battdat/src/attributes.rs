//! Text attributes, as `PyTables` and others write them.

use std::ffi::CString;

use hdf5::{
    Datatype, Extents, Location,
    plist::CharEncoding,
    types::{VarLenAscii, VarLenUnicode},
};

use crate::raw;

/// Reads a text attribute; `None` where there is none, empty where it has no value.
pub(crate) fn read_text(node: &Location, name: &str) -> hdf5::Result<Option<String>> {
    if !exists(node, name)? {
        return Ok(None);
    }
    let attribute = node.attr(name)?;
    if attribute.space()?.is_null() {
        return Ok(Some(String::new()));
    }
    let fixed = raw::read_text_attribute(&attribute).map(|mut bytes| {
        bytes.truncate(bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    fixed
        .or_else(|_| {
            attribute
                .read_scalar::<VarLenUnicode>()
                .map(|text| text.to_string())
        })
        .or_else(|_| {
            attribute
                .read_scalar::<VarLenAscii>()
                .map(|text| text.to_string())
        })
        .map(Some)
}

/// Tells whether a node has an attribute.
pub(crate) fn exists(node: &Location, name: &str) -> hdf5::Result<bool> {
    let name = CString::new(name).map_err(|error| error.to_string())?;
    raw::has_attribute(node, &name)
}

/// Writes a text attribute in the form `PyTables` gives it: an empty text has no value.
pub(crate) fn write_text(node: &Location, name: &str, text: &str) -> hdf5::Result<()> {
    let dtype = raw::text(text.len().max(1), true)?;
    if text.is_empty() {
        node.new_attr_builder()
            .empty_as(&dtype)
            .char_encoding(CharEncoding::Ascii)
            .shape(Extents::Null)
            .create(name)?;
        return Ok(());
    }
    write_value(node, name, &dtype, text.as_bytes())
}

/// Writes an attribute of one value.
pub(crate) fn write_value(
    node: &Location,
    name: &str,
    dtype: &Datatype,
    bytes: &[u8],
) -> hdf5::Result<()> {
    let attribute = node
        .new_attr_builder()
        .empty_as(dtype)
        .char_encoding(CharEncoding::Ascii)
        .create(name)?;
    raw::write_attribute(&attribute, dtype, bytes)
}
