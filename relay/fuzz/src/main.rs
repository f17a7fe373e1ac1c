//! libFuzzer around one target, which `RELAY_FUZZ_TARGET` names. Without it, a list of all. Built by `e2e/fuzz`.
#![no_main]

use std::sync::LazyLock;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that one input may cost: some milliseconds are usual. Counted here, as libFuzzer's own limit counts a busy
/// machine's delays too. An input that never ends is noticed by `e2e fuzz`.
const INPUT_CPU_SECONDS_MAX: i64 = 10;

static TARGET: LazyLock<&'static relay_fuzz::Target> = LazyLock::new(|| {
    let Ok(name) = std::env::var("RELAY_FUZZ_TARGET") else {
        list();
        std::process::exit(0)
    };
    relay_fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("RELAY_FUZZ_TARGET names no target: `{name}`");
        std::process::exit(2)
    })
});

/// Each target with the length of its inputs, for whoever runs them all.
#[expect(clippy::print_stdout, reason = "that is what was asked for")]
fn list() {
    for target in relay_fuzz::TARGETS {
        println!("{}\t{}", target.name, target.input_bytes_max);
    }
}

// The first story makes keys and tables; that is not the fault of its input.
libfuzzer_sys::fuzz_target!(init: (TARGET.run)(&[]), |data: &[u8]| {
    let before = clock_gettime(ClockId::ProcessCPUTime);
    (TARGET.run)(data);
    let spent = clock_gettime(ClockId::ProcessCPUTime) - before;
    assert!(spent.tv_sec < INPUT_CPU_SECONDS_MAX, "this input cost {} s of CPU time", spent.tv_sec);
});
