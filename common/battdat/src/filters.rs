//! Which compression filters a table needs, and whether they are here.

use std::fmt;

use hdf5::Dataset;

use crate::raw;

/// A compression filter by its registered number, named where it is a common one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterName(pub i32);

impl fmt::Display for FilterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "deflate (zlib)",
            2 => "shuffle",
            3 => "fletcher32",
            4 => "szip",
            5 => "nbit",
            6 => "scale-offset",
            305 => "lzo",
            307 => "bzip2",
            32_000 => "lzf",
            32_001 => "blosc",
            32_004 => "lz4",
            32_008 => "bitshuffle",
            32_013 => "zfp",
            32_015 => "zstd",
            32_026 => "blosc2",
            number => return write!(f, "HDF5 filter {number}"),
        };
        write!(f, "{name}")
    }
}

/// Returns the first filter of a table that cannot be decoded here.
pub(crate) fn missing(dataset: &Dataset) -> hdf5::Result<Option<FilterName>> {
    Ok(raw::missing_filter(dataset)?.map(FilterName))
}
