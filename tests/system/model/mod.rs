//! A real hub and a model of it are given the same operations, drawn at random; then tables,
//! rejected rows and positions must be the same.
//!
//! `ROVI_MODEL_CASES=500` runs many cases; without it there are few, always the same.

mod client;
mod expected;

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value, json};
use system_tests::{Stack, hub::HubProcess};

use self::{client::Driver, expected::Battery};

const FEW_CASES: u32 = 8;

/// A cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// The row does not name the column.
    Missing,
    Null,
    Int(i64),
    Float(f64),
    Text(&'static str),
    Bool(bool),
    /// A value that no column can hold.
    Nested,
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Self::Missing | Self::Null => Value::Null,
            Self::Int(value) => json!(value),
            Self::Float(value) => json!(value),
            Self::Text(text) => json!(text),
            Self::Bool(value) => json!(value),
            Self::Nested => json!({"x": 1}),
        }
    }
}

/// The columns that rows may have, by the names they are sent under.
pub(super) const COLUMNS: [&str; 4] = ["test_time", "a", "b", "seq"];
/// A row by [`COLUMNS`].
pub(super) type Row = [Cell; 4];

/// How rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Columns,
    Rows,
}

/// Rows of one frame or body.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) form: Form,
    /// Whether it goes as a text frame in JSON.
    pub(super) is_text: bool,
    pub(super) rows: Vec<Row>,
}

impl Frame {
    pub(super) fn json(&self) -> Value {
        match self.form {
            Form::Rows => self.rows.iter().map(object).collect(),
            Form::Columns => {
                let column = |place: usize| self.rows.iter().map(move |row| &row[place]);
                // The second one always goes along, so that there is a column at all.
                let is_named =
                    |place: usize| place == 1 || column(place).any(|cell| *cell != Cell::Missing);
                let named = (0..COLUMNS.len()).filter(|place| is_named(*place));
                named
                    .map(|place| {
                        let cells: Vec<Value> = column(place).map(Cell::json).collect();
                        (COLUMNS[place].to_owned(), json!(cells))
                    })
                    .collect::<Map<_, _>>()
                    .into()
            }
        }
    }
}

fn object(row: &Row) -> Value {
    let named = row.iter().zip(COLUMNS);
    let cells = named.filter(|(cell, _)| **cell != Cell::Missing);
    cells
        .map(|(cell, name)| (name.to_owned(), cell.json()))
        .collect::<Map<_, _>>()
        .into()
}

/// What is done to the hub and to the model.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// Goes on with one of the sessions, from so many frames before its end, all sent again.
    Resume {
        session: usize,
        frames_again: usize,
        new_segment: bool,
    },
    /// Sends a frame and waits until it is stored.
    Send(Frame),
    /// Sends frames and cuts the connection at once, so that nobody knows what was stored.
    SendAndCut(Vec<Frame>),
    /// Posts a body, under one of a few keys or none.
    Post(Option<usize>, Frame),
}

fn cells() -> impl Strategy<Value = Row> {
    use Cell::{Bool, Float, Int, Missing, Nested, Null, Text};
    let times = [0.0, 10.0, 20.0, 5_000.0, 10_000.0];
    let time = prop_oneof![
        1 => Just(Missing),
        1 => Just(Null),
        6 => proptest::sample::select(times.to_vec()).prop_map(Float),
    ];
    let number = prop_oneof![
        2 => Just(Missing),
        1 => Just(Null),
        8 => (-3..100_i64).prop_map(Int),
        1 => Just(Int(9_007_199_254_740_993)),
        2 => (0..100_i32).prop_map(|n| Float(f64::from(n) / 4.0)),
        1 => Just(Text("no number")),
        1 => Just(Nested),
    ];
    let mixed = prop_oneof![
        4 => Just(Missing),
        1 => Just(Null),
        4 => Just(Text("x")),
        1 => Just(Text("")),
        2 => Just(Bool(true)),
        1 => Just(Int(7)),
    ];
    let renamed = prop_oneof![4 => Just(Missing), 1 => (0..5_i64).prop_map(Int)];
    (time, number, mixed, renamed).prop_map(|(time, a, b, seq)| [time, a, b, seq])
}

fn frames() -> impl Strategy<Value = Frame> {
    let form = prop_oneof![Just(Form::Columns), Just(Form::Rows)];
    let rows = proptest::collection::vec(cells(), 1..12);
    (form, any::<bool>(), rows).prop_map(|(form, is_text, rows)| Frame {
        form,
        is_text,
        rows,
    })
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let resume =
        (0..3_usize, 0..3_usize, any::<bool>()).prop_map(|(session, frames_again, new_segment)| {
            Operation::Resume {
                session,
                frames_again,
                new_segment,
            }
        });
    let several = proptest::collection::vec(frames(), 1..4);
    let one = prop_oneof![
        2 => resume,
        5 => frames().prop_map(Operation::Send),
        2 => several.prop_map(Operation::SendAndCut),
        2 => (proptest::option::of(0..3_usize), frames())
            .prop_map(|(key, frame)| Operation::Post(key, frame)),
    ];
    proptest::collection::vec(one, 1..20)
}

#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
fn cases() -> Option<u32> {
    std::env::var("ROVI_MODEL_CASES").ok()?.parse().ok()
}

#[test]
fn a_hub_and_its_model_agree_after_any_operations() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stack, hub) = runtime.block_on(async {
        let stack = Stack::servers();
        let mut hub = HubProcess::new(&stack, 0, &[]);
        hub.start("");
        hub.ready().await;
        (stack, hub)
    });
    let config = Config {
        cases: cases().unwrap_or(FEW_CASES),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let mut runner = if cases().is_some() {
        TestRunner::new(config)
    } else {
        let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, seed)
    };
    let number = std::cell::Cell::new(0);
    let ran = runner.run(&operations(), |operations| {
        number.set(number.get() + 1);
        let battery = format!("model-{}", number.get());
        let agreed = runtime.block_on(agree(&stack, &hub, &battery, operations));
        agreed.map_err(TestCaseError::fail)
    });
    if let Err(difference) = ran {
        panic!("{difference}");
    }
}

/// Does the operations to both and compares them.
async fn agree(
    stack: &Stack,
    hub: &HubProcess,
    battery: &str,
    operations: Vec<Operation>,
) -> Result<(), String> {
    let mut model = Battery::default();
    let mut driver = Driver::new(hub, battery);
    for operation in operations {
        match operation {
            Operation::Resume {
                session,
                frames_again,
                new_segment,
            } => {
                let resumed = driver.resume(&mut model, session, frames_again, new_segment);
                resumed.await?;
            }
            Operation::Send(frame) => driver.send(&mut model, frame).await?,
            Operation::SendAndCut(frames) => driver.send_and_cut(&mut model, frames).await?,
            Operation::Post(key, frame) => driver.post(&mut model, key, frame).await?,
        }
    }
    driver.settle(&mut model).await?;
    model.compare(&mut stack.database(), battery)
}
