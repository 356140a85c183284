//! Msgpack that others wrote: bounded in depth, so that no bytes fill the stack of whoever reads them.

use rmp_serde::{Deserializer, decode::Error};
use serde::{Deserialize, de::DeserializeOwned};

/// How deep anything may be nested: what is said here is flat, and unknown keys are passed over.
pub const MAX_DEPTH: usize = 64;

/// Reads a value.
///
/// # Errors
/// The bytes are no such value, or nested too deep.
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    let mut reader = Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut reader)
}

/// Reads the value with which `bytes` begin, and moves them behind it.
///
/// # Errors
/// As [`from_slice`].
pub(crate) fn read<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, Error> {
    let mut reader = Deserializer::new(bytes);
    reader.set_max_depth(MAX_DEPTH / 2);
    T::deserialize(&mut reader)
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    #[test]
    fn what_is_nested_without_end_is_refused_before_the_stack_is_full() {
        let read = |depth: usize| {
            let deep = [vec![0x91; depth], vec![0xc0]].concat();
            from_slice::<IgnoredAny>(&deep)
        };
        assert!(read(MAX_DEPTH / 2).is_ok());
        for depth in [MAX_DEPTH + 1, 1000, 400_000] {
            assert!(matches!(read(depth), Err(Error::DepthLimitExceeded)));
        }
    }
}
