//! The C ABI, driven by arbitrary sequences of calls that keep the header's rules about who frees what, and no others: handles that
//! stand at something else, NULL, numbers that are none, callbacks that free, resume, begin and register while a call is under way.
//! AddressSanitizer looks at memory; beside it: exactly one of call, wait and decision, each function called once, each log released
//! once, no defect, and a summary that says what the single functions say.
//!
//! Input: a byte that chooses the configuration, then an operation a byte, each with its arguments; the first sixteen are those of the
//! core's target `conversation`.

#![no_main]

mod views;
mod world;

use libfuzzer_sys::fuzz_target;
use tokenward_core_fuzz::Input;

use crate::world::World;

// There in a library for tests alone, which keeps no step's memory for the next one: AddressSanitizer sees a step that is used after its end.
const _: extern "C" fn(u32) = tokenward::tokenward_testing_panic_next;

/// No sequence is longer.
const OPERATIONS: usize = 40;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte());
    for _ in 0..OPERATIONS {
        if input.is_empty() {
            break;
        }
        world.call(&mut input);
    }
    world.end();
});
