//! Walks a file: which nodes are tables of which battery, and which are left out and why.
//!
//! Looks one group deep, as battdat does, and follows no link out of the file.

use hdf5::{
    Dataset, File, Group, IndexType, IterationOrder, LinkType, Location, LocationType,
    dataset::Layout as StorageLayout,
};

use crate::{
    attributes,
    column::LeftOut,
    file::{BatteryEntry, TableEntry, node_path},
    layout::Layout,
    raw::{self, Class},
    schema::{self, ColumnSchema},
};

/// The most that deflate can compress is 1032 : 1; other filters and reserve in the rest.
const MAX_COMPRESSION: u64 = 4096;
/// Tables up to this size are read whatever they take in the file, as rows never written do.
const HARMLESS_BYTES: u64 = 64 << 20;

/// What was found in a file.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) batteries: Vec<BatteryEntry>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) problems: Vec<String>,
}

/// What was found in one group.
#[derive(Default)]
struct GroupContents {
    tables: Vec<TableEntry>,
    groups: Vec<String>,
    left_out: Vec<LeftOut>,
    problems: Vec<String>,
}

/// Lists the batteries of a file.
pub(crate) fn file(file: &File) -> hdf5::Result<Scanned> {
    let mut scanned = Scanned::default();
    let root = group(file, None, &file.filename())?;
    let groups = root.groups.clone();
    scanned.take(None, root, None);
    for name in groups {
        let path = format!("/{name}");
        let found = file.group(&name).and_then(|node| {
            let metadata = attributes::read_text(&node, "metadata").unwrap_or_default();
            Ok((group(&node, Some(&name), &file.filename())?, metadata))
        });
        match found {
            Ok((contents, _)) if contents.tables.is_empty() => {
                scanned.left_out.push(LeftOut {
                    path,
                    reason: "a group without battdat tables".to_owned(),
                });
            }
            Ok((contents, metadata)) => scanned.take(Some(name), contents, metadata),
            Err(error) => scanned.left_out.push(unreadable(path, &error)),
        }
    }
    Ok(scanned)
}

impl Scanned {
    /// Takes a group as a battery, if it has tables.
    fn take(
        &mut self,
        prefix: Option<String>,
        contents: GroupContents,
        metadata_json: Option<String>,
    ) {
        self.problems.extend(contents.problems);
        if contents.tables.is_empty() {
            self.left_out.extend(contents.left_out);
            return;
        }
        let mut left_out = contents.left_out;
        if prefix.is_some() {
            left_out.extend(contents.groups.iter().map(|name| LeftOut {
                path: node_path(prefix.as_deref(), name),
                reason: "a group inside a battery".to_owned(),
            }));
        }
        self.batteries.push(BatteryEntry {
            prefix,
            tables: contents.tables,
            left_out,
            metadata_json,
        });
    }
}

fn unreadable(path: String, error: &hdf5::Error) -> LeftOut {
    LeftOut {
        path,
        reason: format!("cannot be opened: {error}"),
    }
}

/// Lists the nodes of one group.
fn group(group: &Group, prefix: Option<&str>, file_name: &str) -> hdf5::Result<GroupContents> {
    let mut contents = GroupContents::default();
    for (name, link) in group.links(IndexType::default(), IterationOrder::default())? {
        let path = node_path(prefix, &name);
        if link.link_type == LinkType::External {
            contents.left_out.push(LeftOut {
                path,
                reason: "a link to another file".to_owned(),
            });
            continue;
        }
        if let Err(error) = contents.add_node(group, &name, &path, file_name) {
            contents.left_out.push(unreadable(path, &error));
        }
    }
    Ok(contents)
}

impl GroupContents {
    /// Adds one node as table, as group or as left out.
    fn add_node(
        &mut self,
        group: &Group,
        name: &str,
        path: &str,
        file_name: &str,
    ) -> hdf5::Result<()> {
        // A soft link may lead through a link to another file.
        let elsewhere = |node: &Location| node.filename() != file_name;
        let group_elsewhere = |node: &Group| elsewhere(node);
        let reason = match group.loc_type_by_name(name)? {
            LocationType::Group if group_elsewhere(&group.group(name)?) => "a link to another file",
            LocationType::Group => {
                self.groups.push(name.to_owned());
                return Ok(());
            }
            LocationType::Dataset => {
                let dataset = group.dataset(name)?;
                if elsewhere(&dataset) {
                    "a link to another file"
                } else {
                    match not_a_table(&dataset, name)? {
                        None => return self.add_table(&dataset, name, path),
                        Some(reason) => reason,
                    }
                }
            }
            LocationType::NamedDatatype => "a type, not a table",
        };
        self.left_out.push(LeftOut {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Adds a table with its columns.
    fn add_table(&mut self, dataset: &Dataset, name: &str, path: &str) -> hdf5::Result<()> {
        let layout = Layout::of(&dataset.dtype()?)?;
        let mut columns = layout.columns;
        match column_schema(dataset) {
            Ok(schema) => schema.describe(&mut columns),
            Err(problem) => self.problems.push(format!("table {path}: {problem}")),
        }
        let left_out = layout.left_out.into_iter().map(|(column, reason)| LeftOut {
            path: format!("{path}/{column}"),
            reason: format!("a column that cannot be read: {reason}"),
        });
        self.left_out.extend(left_out);
        self.tables.push(TableEntry {
            name: name.to_owned(),
            rows: dataset.size(),
            columns,
        });
        Ok(())
    }
}

/// Tells why a dataset is not a battdat table.
fn not_a_table(dataset: &Dataset, name: &str) -> hdf5::Result<Option<&'static str>> {
    Ok(match raw::class(&dataset.dtype()?)? {
        Class::Compound => {
            let plist = dataset.dcpl()?;
            let has_schema = attributes::exists(dataset, "metadata")?;
            if dataset.ndim() != 1 {
                Some("not a one-dimensional table")
            } else if plist.get_layout()? == StorageLayout::Virtual
                || !plist.get_external()?.is_empty()
            {
                Some("its rows lie in another file")
            } else if claims_too_much(dataset)? {
                Some("it claims far more rows than the file has data for")
            } else if !has_schema && !schema::is_known(name) {
                Some("a table without battdat's description of columns")
            } else {
                None
            }
        }
        Class::Other(what) => Some(what),
        _ => Some("not a table"),
    })
}

/// Tells whether a table has more rows than its bytes could be unpacked to, as a small damaged or
/// crafted file may say of itself.
fn claims_too_much(dataset: &Dataset) -> hdf5::Result<bool> {
    let claimed = (dataset.size() as u64).saturating_mul(dataset.dtype()?.size() as u64);
    let possible = dataset.storage_size().saturating_mul(MAX_COMPRESSION);
    Ok(claimed > possible.max(HARMLESS_BYTES))
}

/// Reads the descriptions of a table's columns.
fn column_schema(dataset: &Dataset) -> Result<ColumnSchema, String> {
    let text = attributes::read_text(dataset, "metadata")
        .map_err(|error| format!("the description of its columns cannot be read: {error}"))?
        .ok_or("it has no description of its columns; their units are not known")?;
    ColumnSchema::parse(&text)
        .map_err(|error| format!("the description of its columns is not a JSON object: {error}"))
}
