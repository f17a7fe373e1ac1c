//! libFuzzer around one target, which `RELAY_FUZZ_TARGET` names. Without it, a list of all. Built by `e2e/fuzz`.
#![no_main]

use std::sync::LazyLock;

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
libfuzzer_sys::fuzz_target!(init: (TARGET.run)(&[]), |data: &[u8]| (TARGET.run)(data));
