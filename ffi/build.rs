//! The shared library's name for the dynamic linker: it changes with the ABI's major number alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libtokenward.so.1");
}
