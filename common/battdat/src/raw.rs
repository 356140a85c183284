//! The calls of libhdf5 that the `hdf5` crate has no safe form for: types made at run time, rows
//! of such types, and attributes of any type. The only module of this crate with unsafe code.
//!
//! Every function takes `hdf5`'s process-wide lock, checks every length against the type before a
//! pointer is handed out, and closes nothing by itself: handles are owned by [`Datatype`].

#![expect(
    unsafe_code,
    reason = "the columns of a file are known only at run time; `hdf5` reads and writes types known at compile time"
)]

use std::{
    ffi::{CStr, CString},
    ptr,
};

use hdf5::{Attribute, Dataset, Dataspace, Datatype, Location, Result, h5check, sync::sync};
use hdf5_sys::{
    h5::{H5free_memory, hsize_t},
    h5a::{H5Aexists, H5Aread, H5Awrite},
    h5d::{H5Dread, H5Dwrite},
    h5i::hid_t,
    h5p::{H5P_DEFAULT, H5Pget_filter2, H5Pget_nfilters},
    h5t::{self, H5T_class_t, H5T_cset_t, H5T_sign_t, H5T_str_t},
    h5z::H5Zfilter_avail,
};

/// What a type is, as far as a column can hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Class {
    /// An integer.
    Integer { signed: bool },
    /// A floating-point number of any width.
    Float,
    /// An 8-bit bit field, or an 8-bit enumeration, which is how booleans are stored.
    Boolean,
    /// A text of fixed length; `padded` with spaces or ended by NUL.
    Text { padded: bool },
    /// An array of fixed shape.
    Array { shape: Vec<usize> },
    /// A row of named members.
    Compound,
    /// Anything else, named for messages.
    Other(&'static str),
}

/// One member of a compound type.
#[derive(Debug)]
pub(crate) struct Member {
    /// The name as stored, which need not be UTF-8.
    pub(crate) name: CString,
    /// Its type.
    pub(crate) dtype: Datatype,
}

/// Takes ownership of a fresh type handle.
fn owned(id: hid_t) -> Result<Datatype> {
    // SAFETY: the callers pass ids that libhdf5 just made for them; a negative one is an error.
    unsafe { hdf5::from_id(h5check(id)?) }
}

/// Tells what a type is.
pub(crate) fn class(dtype: &Datatype) -> Result<Class> {
    let id = dtype.id();
    // SAFETY: `id` is an open type for as long as `dtype` lives; these calls only look at it.
    sync(|| unsafe {
        Ok(match h5t::H5Tget_class(id) {
            H5T_class_t::H5T_INTEGER => Class::Integer {
                signed: h5t::H5Tget_sign(id) == H5T_sign_t::H5T_SGN_2,
            },
            H5T_class_t::H5T_FLOAT => Class::Float,
            H5T_class_t::H5T_BITFIELD if h5t::H5Tget_size(id) == 1 => Class::Boolean,
            H5T_class_t::H5T_ENUM if is_boolean(id) => Class::Boolean,
            H5T_class_t::H5T_BITFIELD => Class::Other("bit field of more than 8 bits"),
            H5T_class_t::H5T_ENUM => Class::Other("enumeration"),
            H5T_class_t::H5T_STRING if h5check(h5t::H5Tis_variable_str(id))? > 0 => {
                Class::Other("text of variable length")
            }
            H5T_class_t::H5T_STRING => Class::Text {
                padded: h5t::H5Tget_strpad(id) == H5T_str_t::H5T_STR_SPACEPAD,
            },
            H5T_class_t::H5T_ARRAY => Class::Array { shape: shape(id)? },
            H5T_class_t::H5T_COMPOUND => Class::Compound,
            H5T_class_t::H5T_VLEN => Class::Other("list of variable length"),
            H5T_class_t::H5T_REFERENCE => Class::Other("reference"),
            H5T_class_t::H5T_TIME => Class::Other("HDF5 time"),
            _ => Class::Other("opaque data"),
        })
    })
}

/// Tells whether an enumeration is `FALSE` = 0 and `TRUE` = 1 in 8 bits.
///
/// # Safety
/// `id` is an open enumeration type and the lock is held.
unsafe fn is_boolean(id: hid_t) -> bool {
    // SAFETY: the names end in NUL; a value of an 8-bit enumeration fits the byte it is put in.
    unsafe {
        h5t::H5Tget_size(id) == 1
            && h5t::H5Tget_nmembers(id) == 2
            && [(c"FALSE", 0), (c"TRUE", 1)]
                .into_iter()
                .all(|(name, expected)| {
                    let mut value = u8::MAX;
                    let found = h5t::H5Tenum_valueof(id, name.as_ptr(), (&raw mut value).cast());
                    found >= 0 && value == expected
                })
    }
}

/// Returns the shape of an array type.
///
/// # Safety
/// `id` is an open array type and the lock is held.
unsafe fn shape(id: hid_t) -> Result<Vec<usize>> {
    // SAFETY: `dims` has room for as many lengths as libhdf5 says it writes.
    let dims = unsafe {
        let count = h5check(h5t::H5Tget_array_ndims(id))?;
        let mut dims: Vec<hsize_t> = vec![0; usize::try_from(count).unwrap_or(0)];
        h5check(h5t::H5Tget_array_dims2(id, dims.as_mut_ptr()))?;
        dims
    };
    dims.into_iter()
        .map(|dim| usize::try_from(dim).map_err(|error| error.to_string().into()))
        .collect()
}

/// Returns the element type of an array.
pub(crate) fn element(array: &Datatype) -> Result<Datatype> {
    // SAFETY: the type is open; the new handle is owned by the result.
    owned(sync(|| unsafe { h5t::H5Tget_super(array.id()) }))
}

/// Returns the members of a compound type in the order of the file.
///
/// Refuses a type whose members lie outside it, as in a damaged file: libhdf5 before 1.14 would
/// read beyond its buffer.
pub(crate) fn members(compound: &Datatype) -> Result<Vec<Member>> {
    let id = compound.id();
    // SAFETY: `id` is an open type; it is a compound or the count is an error.
    let count = h5check(sync(|| unsafe { h5t::H5Tget_nmembers(id) }))?;
    (0..u32::try_from(count).unwrap_or(0))
        .map(|index| {
            // SAFETY: `index` is below the count; the name is copied before libhdf5's is freed.
            let name = sync(|| unsafe {
                let name = h5t::H5Tget_member_name(id, index);
                if name.is_null() {
                    return None;
                }
                let copy = CStr::from_ptr(name).to_owned();
                H5free_memory(name.cast());
                Some(copy)
            });
            // SAFETY: as above; the new handle is owned by the result.
            let dtype = owned(sync(|| unsafe { h5t::H5Tget_member_type(id, index) }))?;
            // SAFETY: as above.
            let offset = sync(|| unsafe { h5t::H5Tget_member_offset(id, index) });
            if offset
                .checked_add(dtype.size())
                .is_none_or(|end| end > compound.size())
            {
                return Err("a column lies outside its row; the file is damaged".into());
            }
            Ok(Member {
                name: name.ok_or("a member of the table has no name")?,
                dtype,
            })
        })
        .collect()
}

/// Makes a compound type of packed members, in this order.
pub(crate) fn compound(members: &[Member]) -> Result<Datatype> {
    let size: usize = members.iter().map(|member| member.dtype.size()).sum();
    // SAFETY: a size of 0 is refused by libhdf5; the handle is owned by the result.
    let row = owned(sync(|| unsafe {
        h5t::H5Tcreate(H5T_class_t::H5T_COMPOUND, size)
    }))?;
    let mut offset = 0;
    for member in members {
        // SAFETY: both types are open, the name ends in NUL, and the members add up to `size`.
        h5check(sync(|| unsafe {
            h5t::H5Tinsert(row.id(), member.name.as_ptr(), offset, member.dtype.id())
        }))?;
        offset += member.dtype.size();
    }
    Ok(row)
}

/// Makes an array type.
pub(crate) fn array(element: &Datatype, shape: &[usize]) -> Result<Datatype> {
    let dims: Vec<hsize_t> = shape.iter().map(|&dim| dim as hsize_t).collect();
    let count = u32::try_from(dims.len()).map_err(|error| error.to_string())?;
    // SAFETY: `dims` has `count` lengths; the handle is owned by the result.
    owned(sync(|| unsafe {
        h5t::H5Tarray_create2(element.id(), count, dims.as_ptr())
    }))
}

/// Makes the 8-bit field that booleans are stored as.
pub(crate) fn bits() -> Result<Datatype> {
    // `hdf5` starts the library at its first call, before which the predefined ids are not set.
    Datatype::from_type::<u8>()?;
    // SAFETY: copying a predefined type; the copy is owned by the result.
    owned(sync(|| unsafe { h5t::H5Tcopy(*h5t::H5T_STD_B8LE) }))
}

/// Makes a text type of `bytes` bytes that ends at the first NUL.
pub(crate) fn text(bytes: usize, utf8: bool) -> Result<Datatype> {
    // As in `bits`.
    Datatype::from_type::<u8>()?;
    let charset = if utf8 {
        H5T_cset_t::H5T_CSET_UTF8
    } else {
        H5T_cset_t::H5T_CSET_ASCII
    };
    // SAFETY: copying a predefined type; the copy is owned by the result.
    let text = owned(sync(|| unsafe { h5t::H5Tcopy(*h5t::H5T_C_S1) }))?;
    // SAFETY: `text` is an open string type of our own.
    sync(|| unsafe {
        h5check(h5t::H5Tset_size(text.id(), bytes))?;
        h5check(h5t::H5Tset_cset(text.id(), charset))?;
        h5check(h5t::H5Tset_strpad(text.id(), H5T_str_t::H5T_STR_NULLTERM))
    })?;
    Ok(text)
}

/// Checks that `row` holds its values in itself and that `count` rows of it fill `bytes`.
fn check_room(row: &Datatype, count: usize, bytes: usize) -> Result<()> {
    // SAFETY: the type is open.
    let points_elsewhere =
        sync(|| unsafe { h5check(h5t::H5Tdetect_class(row.id(), H5T_class_t::H5T_VLEN)) })?;
    if points_elsewhere > 0 || row.size().checked_mul(count) != Some(bytes) {
        return Err("the buffer does not fit the type of the rows".into());
    }
    Ok(())
}

/// Selects `count` rows from `start` in the file, and as many in memory.
fn spaces(dataset: &Dataset, start: usize, count: usize) -> Result<(Dataspace, Dataspace)> {
    let in_file = dataset.space()?.select(start..start + count)?;
    Ok((Dataspace::try_new(count)?, in_file))
}

/// Reads `count` rows from `start` into `bytes`, each in the layout of `row`.
///
/// `row` is made by [`compound`] of members whose [`Class`] is a value, never [`Class::Other`].
pub(crate) fn read_rows(
    dataset: &Dataset,
    row: &Datatype,
    (start, count): (usize, usize),
    bytes: &mut [u8],
) -> Result<()> {
    check_room(row, count, bytes.len())?;
    let (in_memory, in_file) = spaces(dataset, start, count)?;
    // SAFETY: all handles are open; `count` rows are selected on both sides, and `bytes` has
    // exactly their size in memory, in a type without pointers.
    h5check(sync(|| unsafe {
        H5Dread(
            dataset.id(),
            row.id(),
            in_memory.id(),
            in_file.id(),
            H5P_DEFAULT,
            bytes.as_mut_ptr().cast(),
        )
    }))?;
    Ok(())
}

/// Writes the `count` rows in `bytes`, each in the layout of `row`, from `start` on.
pub(crate) fn write_rows(
    dataset: &Dataset,
    row: &Datatype,
    (start, count): (usize, usize),
    bytes: &[u8],
) -> Result<()> {
    check_room(row, count, bytes.len())?;
    let (in_memory, in_file) = spaces(dataset, start, count)?;
    // SAFETY: as in `read_rows`; libhdf5 only reads from `bytes`.
    h5check(sync(|| unsafe {
        H5Dwrite(
            dataset.id(),
            row.id(),
            in_memory.id(),
            in_file.id(),
            H5P_DEFAULT,
            bytes.as_ptr().cast(),
        )
    }))?;
    Ok(())
}

/// Tells whether a node has an attribute, without looking at the others, which may be damaged.
pub(crate) fn has_attribute(node: &Location, name: &CStr) -> Result<bool> {
    // SAFETY: the node is open and the name ends in NUL.
    let exists = h5check(sync(|| unsafe { H5Aexists(node.id(), name.as_ptr()) }))?;
    Ok(exists > 0)
}

/// Reads the bytes of a scalar attribute whose type is a text of fixed length.
pub(crate) fn read_text_attribute(attribute: &Attribute) -> Result<Vec<u8>> {
    let dtype = attribute.dtype()?;
    if !matches!(class(&dtype)?, Class::Text { .. }) || attribute.size() != 1 {
        return Err("the attribute is not one text".into());
    }
    let mut bytes = vec![0; dtype.size()];
    // SAFETY: the attribute is one value of `dtype`, whose size `bytes` has.
    h5check(sync(|| unsafe {
        H5Aread(attribute.id(), dtype.id(), bytes.as_mut_ptr().cast())
    }))?;
    Ok(bytes)
}

/// Writes one value of type `dtype` to a scalar attribute of that type.
pub(crate) fn write_attribute(attribute: &Attribute, dtype: &Datatype, bytes: &[u8]) -> Result<()> {
    check_room(dtype, 1, bytes.len())?;
    if attribute.size() != 1 {
        return Err("the attribute is not one value".into());
    }
    // SAFETY: the attribute is one value, and `bytes` has the size of `dtype`.
    h5check(sync(|| unsafe {
        H5Awrite(attribute.id(), dtype.id(), bytes.as_ptr().cast())
    }))?;
    Ok(())
}

/// Returns the number of the first filter of a table that cannot be decoded here.
pub(crate) fn missing_filter(dataset: &Dataset) -> Result<Option<i32>> {
    let plist = dataset.dcpl()?;
    // SAFETY: the property list is open; no room for values or a name is offered, so none is
    // written.
    sync(|| unsafe {
        let count = u32::try_from(h5check(H5Pget_nfilters(plist.id()))?).unwrap_or(0);
        for index in 0..count {
            let mut flags = 0;
            let mut values = 0;
            let filter = h5check(H5Pget_filter2(
                plist.id(),
                index,
                &raw mut flags,
                &raw mut values,
                ptr::null_mut(),
                0,
                ptr::null_mut(),
                ptr::null_mut(),
            ))?;
            if H5Zfilter_avail(filter) <= 0 {
                return Ok(Some(filter));
            }
        }
        Ok(None)
    })
}
