//! Columns of logits by another vocabulary's numbers, on both devices.

use heirloom_engine::{Cpu, Device, IGNORED, Reference};

use crate::rows::{ids, new};

const NEVER: f64 = f64::NEG_INFINITY;

fn devices() -> [Box<dyn Device>; 3] {
    [Box::new(Reference::<f64>::new()), Box::new(Cpu::new(1)), Box::new(Cpu::new(3))]
}

#[test]
fn columns_are_picked_by_their_numbers_and_what_has_none_is_forbidden() {
    for mut device in devices() {
        let (from, to) = (new(&mut *device, 2, 3), new(&mut *device, 2, 4));
        device.write_f64(from, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let columns = ids(&mut *device, &[2, IGNORED, 0, 2]);
        device.pick_columns(from, columns, to);
        assert_eq!(device.read_f64(to), [3.0, NEVER, 1.0, 3.0, 6.0, NEVER, 4.0, 6.0]);
        device.write_f64(to, &[0.5; 8]);
        device.forbid_columns(to, columns);
        assert_eq!(device.read_f64(to), [0.5, NEVER, 0.5, 0.5, 0.5, NEVER, 0.5, 0.5]);
    }
}

#[test]
fn many_rows_are_cut_among_threads_without_a_trace() {
    let columns: Vec<u32> =
        (0..999).map(|c| if c % 7 == 3 { IGNORED } else { c * 5 % 700 }).collect();
    let values: Vec<f64> = (0..61 * 700).map(|at| f64::from(at) / 64.0).collect();
    let picked = devices().map(|mut device| {
        let (from, to) = (new(&mut *device, 61, 700), new(&mut *device, 61, 999));
        device.write_f64(from, &values);
        let columns = ids(&mut *device, &columns);
        device.pick_columns(from, columns, to);
        device.read_f64(to)
    });
    assert_eq!(picked[0], picked[1]);
    assert_eq!(picked[1], picked[2]);
}

#[test]
#[should_panic(expected = "shapes of picked columns")]
fn fewer_numbers_than_columns_are_refused() {
    let mut device = Cpu::new(1);
    let (from, to) = (new(&mut device, 2, 3), new(&mut device, 2, 4));
    let columns = ids(&mut device, &[0, 1, 2]);
    device.pick_columns(from, columns, to);
}
