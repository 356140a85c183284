//! What scripts give.

use rovi_common::rows::{Column, Columns};
use rovi_python::{Cancel, Outcome, Saved, Script, ScriptFile, Session, Start};

use crate::{PLAIN, python, rows, start};

fn mean(outcome: &Outcome) -> f64 {
    match outcome {
        Outcome::Stepped { belief, .. } => belief.mean[0],
        other => panic!("{other:?} is no step"),
    }
}

#[test]
fn a_plain_class_is_an_estimator() {
    let python = python();
    let mut session = start(&python, PLAIN).unwrap();
    assert_eq!(session.state_names(), ["v_mean"]);
    let taken = session
        .take(&rows(&[0.0, 1.0, 2.0]), &[0, 1, 2], false)
        .unwrap();
    assert_eq!(taken.outcomes[0], Outcome::Started);
    assert!((mean(&taken.outcomes[2]) - 3.5015).abs() < 1e-12);
    assert_eq!(session.belief().mean, [mean(&taken.outcomes[2])]);
}

#[test]
fn a_saved_state_goes_on_bit_for_bit() {
    let python = python();
    let times: Vec<f64> = (0..20).map(f64::from).collect();
    let all: Vec<usize> = (0..20).collect();
    let mut whole = start(&python, PLAIN).unwrap();
    let expected = whole.take(&rows(&times), &all, false).unwrap();

    let mut first = start(&python, PLAIN).unwrap();
    first.take(&rows(&times), &all[..7], false).unwrap();
    let Saved::State(state) = first.save().unwrap() else {
        panic!("a plain object can be pickled");
    };
    let begin = Start {
        state: Some(&state),
        metadata: None,
    };
    let script = crate::script(PLAIN);
    let mut second = Session::start(&python, &script, begin, Cancel::default()).unwrap();
    let taken = second.take(&rows(&times), &all[7..], false).unwrap();
    assert_eq!(taken.outcomes, expected.outcomes[7..]);
}

const TWO_FUNCTIONS: &str = "
import json
from companion import NAMES

class Known:
    state_names = NAMES
    def __init__(self, rows, title, offset):
        self.values = [float(rows), offset]
        self.title = title
        self.restarts = 0
    def step(self, inputs, outputs):
        if self.title not in ('none', 'cell seven'):
            raise ValueError(self.title)
        self.values[1] = inputs.time
        return self.state, Predicted()
    def begin_segment(self, inputs):
        self.values[0] += 100.0
    @property
    def state(self):
        return self
    def get_mean(self):
        return self.values
    def get_covariance(self):
        return [[1.0, 0.0], [0.0, 4.0]]

class Predicted:
    def get_mean(self): return [3.25]
    def get_covariance(self): return [[0.5]]

def perform_offline_estimation(dataset):
    offset = json.load(open('start.json'))
    if dataset is None:
        return (0, 'none'), offset
    times = list(dataset.raw_data['test_time'])
    return (len(times), dataset.metadata['name']), offset

def make_estimator(asoh, offset):
    return Known(*asoh, offset)
";

fn with_files(required_time: f64) -> Script {
    let file = |name: &str, text: &str| ScriptFile {
        name: name.to_owned(),
        content: text.as_bytes().into(),
    };
    let files = vec![
        file("companion.py", "NAMES = ('rows', 'time')\n"),
        file("start.json", "-1.5"),
    ];
    Script::new(TWO_FUNCTIONS, files, required_time).unwrap()
}

#[test]
fn two_functions_find_their_files_and_begin_without_history() {
    let python = python();
    let script = with_files(0.0);
    let mut session =
        Session::start(&python, &script, Start::default(), Cancel::default()).unwrap();
    assert_eq!(session.belief().mean, [0.0, -1.5]);
    let taken = session.take(&rows(&[0.0, 4.0]), &[0, 1], false).unwrap();
    let Outcome::Stepped { belief, predicted } = &taken.outcomes[1] else {
        panic!("{taken:?}");
    };
    assert_eq!(belief.mean, [0.0, 4.0]);
    assert_eq!(belief.covariance, [1.0, 0.0, 0.0, 4.0]);
    assert_eq!(*predicted, Some((3.25, 0.5)));
}

#[test]
fn the_history_is_kept_until_it_spans_the_required_time_and_then_stepped_over() {
    let python = python();
    let script = with_files(10.0);
    let metadata = serde_json::json!({"name": "cell seven"});
    let begin = Start {
        state: None,
        metadata: Some(&metadata),
    };
    let mut session = Session::start(&python, &script, begin, Cancel::default()).unwrap();
    let times = [5.0, 9.0, 15.0, 16.0];
    let taken = session.take(&rows(&times), &[0, 1, 2, 3], false).unwrap();
    assert!(taken.offline);
    assert_eq!(
        taken.outcomes,
        [Outcome::Kept, Outcome::Kept, Outcome::Kept]
    );
    assert!(matches!(session.save().unwrap(), Saved::None(_)));

    session.estimate_offline().unwrap();
    assert_eq!(session.belief().mean, [3.0, -1.5]);
    let first = session.replay(2).unwrap();
    let second = session.replay(1).unwrap();
    assert_eq!(first.outcomes[0], Outcome::Started);
    assert_eq!(second.outcomes.len(), 1);
    assert_eq!(session.belief().mean, [3.0, 15.0]);

    let last = session.take(&rows(&times), &[3], true).unwrap();
    assert_eq!(
        last.outcomes,
        [Outcome::Started],
        "a segment's first row only starts"
    );
    assert_eq!(
        session
            .take(&rows(&times), &[3], false)
            .unwrap()
            .outcomes
            .len(),
        1
    );
    assert_eq!(session.belief().mean, [103.0, 16.0]);
}

#[test]
fn cells_of_every_kind_arrive_as_they_were() {
    let python = python();
    let checking = "
estimator = type('E', (), dict(state_names=['x']))()
EXPECTED = dict(test_time=1.5, current=2, voltage=float('inf'), label='größe', ok=False, at=1700000000.25, n=-70000)
def row_to_inputs(row):
    assert row == EXPECTED, row
    return row, None
estimator.step = lambda row, _: None
class State:
    get_mean = lambda self: [0.0]
    get_covariance = lambda self: [[1.0]]
estimator.state = State()
";
    let mut session = start(&python, checking).unwrap();
    let columns = Columns::new(vec![
        ("test_time".to_owned(), Column::Float(vec![Some(1.5)])),
        ("current".to_owned(), Column::Int(vec![Some(2)])),
        (
            "voltage".to_owned(),
            Column::Float(vec![Some(f64::INFINITY)]),
        ),
        (
            "label".to_owned(),
            Column::Text(vec![Some("größe".to_owned())]),
        ),
        ("ok".to_owned(), Column::Bool(vec![Some(false)])),
        (
            "at".to_owned(),
            Column::Time(vec![Some(1_700_000_000_250_000)]),
        ),
        ("n".to_owned(), Column::Int(vec![Some(-70_000)])),
        ("missing".to_owned(), Column::Float(vec![None])),
    ]);
    let taken = session.take(&columns.unwrap(), &[0], false).unwrap();
    assert_eq!(taken.refusal, None);
    assert_eq!(taken.outcomes, [Outcome::Started]);
}
