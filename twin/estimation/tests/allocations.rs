//! No kind of estimator allocates in a step, trust and health included, once its thread has room to step in.

#![expect(
    unsafe_code,
    reason = "an allocator that counts cannot be written without"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rovi_estimation::{Document, Estimator, Observation};
use serde_json::json;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: handed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: handed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn document(
    kind: &str,
    filter: Option<&str>,
    compat: Option<&str>,
    current_noise: Option<f64>,
) -> Document {
    let document = json!({
        "kind": kind, "filter": filter, "compat": compat, "current_noise": current_noise,
        "asoh": {
            "updatable": ["q_t", "r0"],
            "q_t": {"updatable": ["base_values"], "base_values": 2.0},
            "ocv": {"ocv_ref": {"base_values": [3.0, 3.6, 4.2]}},
            "r0": {"updatable": ["base_values"], "base_values": 0.05},
        },
        "initial_transients": {"soc": 0.5},
        "covariance_transient": [[0.01, 0.0], [0.0, 1e-6]],
        "covariance_asoh": [[0.01, 0.0], [0.0, 1e-6]],
        "sensor_noise": 1e-4,
        "trust": {"on_divergence": "hold"},
    });
    Document::from_json(&document.to_string())
        .expect("a good document")
        .0
}

#[test]
fn a_step_of_any_kind_allocates_nothing() {
    for (kind, filter, compat, current_noise) in [
        ("joint", None, None, None),
        ("joint", None, Some("moirae-0.3"), None),
        ("joint", Some("ekf"), None, None),
        ("joint", Some("square_root_ukf"), None, None),
        ("dual", None, None, None),
        ("dual", None, Some("moirae-0.3"), None),
        ("coulomb_counting", None, None, None),
        ("joint", None, None, Some(1e-4)),
        ("joint", Some("ekf"), None, Some(1e-4)),
        ("joint", Some("square_root_ukf"), None, Some(1e-4)),
        ("dual", None, None, Some(1e-4)),
    ] {
        let mut estimator = Estimator::new(&document(kind, filter, compat, current_noise));
        let mut before = 0;
        for k in 0..1000_u32 {
            if k == 2 {
                // The first step of a size made the room that all steps of the thread share.
                before = COUNT.with(Cell::get);
            }
            let current = [1.0, 0.0, -1.0][k as usize / 50 % 3];
            let row = Observation {
                time: f64::from(k),
                current,
                voltage: 3.6 + 0.05 * current,
                temperature: Some(25.0 + f64::from(k % 7)),
            };
            estimator.observe(&row).unwrap();
        }
        let allocated = COUNT.with(Cell::get) - before;
        assert_eq!(allocated, 0, "{kind} {filter:?} {compat:?}");
        assert_eq!(estimator.trust().interventions, 0);
    }
}
