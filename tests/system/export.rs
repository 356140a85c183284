//! What goes in comes out: a battdat file that is streamed and exported again.

use std::path::Path;

use rovi_battdat::{BattdatFile, ColumnInfo};
use rovi_common::{rows::Columns, testing};
use system_tests::Stack;

/// Kinds, units and cells of the rows of a file.
fn content(path: &Path, prefix: Option<&str>) -> (Vec<ColumnInfo>, Columns) {
    let file = BattdatFile::open(path).unwrap();
    let table = file.table(prefix, "raw_data").unwrap();
    let mut rows = Columns::default();
    for chunk in table.chunks() {
        rows.append(chunk.unwrap());
    }
    (table.columns().to_vec(), rows)
}

async fn hub_only() -> Stack {
    let mut stack = Stack::servers();
    stack.start_hub();
    stack.hub_ready().await;
    stack
}

#[tokio::test]
async fn a_streamed_file_comes_out_with_the_same_rows_and_types() {
    let Some(reference) = testing::reference_folder() else {
        return;
    };
    let stack = hub_only().await;
    for (name, file, prefix) in [
        ("one", "LFP_single_RPT.h5", None),
        ("two", "prefix_two_batteries.h5", Some("cell_A")),
    ] {
        let path = reference.join("../data").join(file);
        let text = path.display().to_string();
        let mut stream = vec!["stream", &text, "--speedup", "max", "--name", name];
        stream.extend(prefix.iter().flat_map(|prefix| ["--prefix", prefix]));
        stack.run_rovicli(&stream).await;
        stack
            .run_rovicli(&["export", name, "--out", "again.h5", "--force"])
            .await;
        let out = stack.folder().join("again.h5");
        let ((sent, rows), (exported, again)) = (content(&path, prefix), content(&out, None));
        let kinds = |columns: &[ColumnInfo]| -> Vec<_> {
            columns
                .iter()
                .map(|column| {
                    (
                        column.name.clone(),
                        column.kind,
                        column.expanded_from.clone(),
                    )
                })
                .collect()
        };
        assert_eq!(kinds(&exported), kinds(&sent), "{file}");
        // As text, so that NaN equals NaN.
        assert_eq!(format!("{again:?}"), format!("{rows:?}"), "{file}");
    }
}

#[tokio::test]
async fn an_export_is_written_whole_or_not_at_all() {
    let stack = hub_only().await;
    stack
        .run_rovicli(&["simulate", "cell.h5", "--rows", "500", "--name", "cell"])
        .await;
    stack
        .run_rovicli(&["stream", "cell.h5", "--speedup", "max"])
        .await;
    stack
        .run_rovicli(&[
            "export",
            "cell",
            "--out",
            "cell.csv",
            "--seq",
            "11..20",
            "--columns",
            "voltage",
        ])
        .await;
    let csv = std::fs::read_to_string(stack.folder().join("cell.csv")).unwrap();
    assert_eq!(
        (csv.lines().count(), csv.lines().next()),
        (11, Some("seq,received,segment,voltage"))
    );
    for (args, told) in [
        (
            ["export", "cell", "--out", "cell.csv"],
            "cell.csv exists already; --force",
        ),
        (
            ["export", "nobody", "--out", "nobody.csv"],
            "No such dataset: nobody",
        ),
        (
            ["export", "cell", "--out", "cell.xls"],
            "the ending tells no form",
        ),
        (
            ["export", "cell", "--out", "no/cell.csv"],
            "cannot write no/cell.csv.part",
        ),
    ] {
        let output = stack.rovicli(&args).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && printed.contains(told),
            "{args:?}: {printed}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(stack.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("part") || name == "nobody.csv"),
        "{left:?}"
    );
}
