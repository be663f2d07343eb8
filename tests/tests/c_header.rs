//! The header is what the code says, every function in it says who owns what, and what is said twice agrees.
//!
//! With `TOKENWARD_WRITE_HEADER` in the environment, the header is written instead of compared: `make -C ffi header`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tokenward_core::{Failure, Reason};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn header() -> String {
    fs::read_to_string(root().join("include/tokenward.h")).unwrap()
}

#[test]
fn the_header_is_what_cbindgen_makes_of_the_code() {
    let ffi = root().join("ffi");
    let config = cbindgen::Config::from_file(ffi.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["result", "text", "request", "introspector", "step", "brief", "decision", "summary", "stats", "log"] {
        builder = builder.with_src(ffi.join(format!("src/{file}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().expect("a header").write(&mut made);
    let made = String::from_utf8(made).unwrap();
    if std::env::var_os("TOKENWARD_WRITE_HEADER").is_some() {
        fs::write(root().join("include/tokenward.h"), made).unwrap();
        return;
    }
    assert!(made == header(), "include/tokenward.h is not what the code says: make -C ffi header");
}

/// Each function of the header: its comment and its declaration.
fn functions() -> Vec<(String, String)> {
    let text = header();
    let mut found = Vec::new();
    for part in text.split("\n/**\n").skip(1) {
        let Some((comment, rest)) = part.split_once("*/\n") else { continue };
        let declaration = rest.split(';').next().unwrap_or_default();
        if !declaration.starts_with('#')
            && !declaration.contains('{')
            && !declaration.contains("typedef")
            && declaration.contains('(')
        {
            found.push((comment.to_owned(), declaration.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

fn name(declaration: &str) -> &str {
    let before = declaration.split('(').next().unwrap();
    before.rsplit([' ', '*']).next().unwrap()
}

#[test]
fn every_function_says_what_it_takes_gives_and_where_it_may_run() {
    let functions = functions();
    assert!(functions.len() > 60, "{}", functions.len());
    for (comment, declaration) in functions {
        let name = name(&declaration);
        assert!(comment.contains("Threads: "), "{name}: threads");
        let gives = !declaration.starts_with("void ");
        assert_eq!(comment.contains("Returns: "), gives, "{name}: what it returns");
        let parameters = declaration.split_once('(').unwrap().1.trim_end_matches(')');
        for declared in parameters.split(", ").filter(|parameter| *parameter != "void") {
            let parameter = declared.rsplit([' ', '*']).next().unwrap();
            let said = comment.lines().any(|line| {
                line.trim_start_matches([' ', '*'])
                    .split(": ")
                    .next()
                    .is_some_and(|names| names.split(", ").any(|name| name == parameter))
            });
            assert!(said, "{name}: parameter {parameter}");
            if declared.contains("**") && !declared.starts_with("const ") {
                assert!(comment.contains("_free`"), "{name}: who frees {parameter}");
            } else if declared.contains("**") || declared.starts_with("struct tokenward_str *") {
                let lives = comment.contains(" live as long as ") || comment.contains(" lives as long as ");
                assert!(lives, "{name}: how long {parameter} lives");
            }
        }
    }
}

#[test]
fn the_exported_functions_are_those_of_the_header_and_of_the_list() {
    let listed: BTreeSet<String> =
        fs::read_to_string(root().join("tests/c/symbols.txt")).unwrap().lines().map(str::to_owned).collect();
    let declared: BTreeSet<String> = functions().iter().map(|(_, declaration)| name(declaration).to_owned()).collect();
    assert_eq!(declared, listed);
    assert!(listed.iter().all(|name| name.starts_with("tokenward_")));
}

/// Names and numbers of an enumeration of the header.
fn enumeration(name: &str) -> Vec<(String, u32)> {
    let text = header();
    let (_, body) = text.split_once(&format!("typedef enum {name} {{")).unwrap();
    body.split('}')
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = "))
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}

#[test]
fn reasons_have_the_cores_names_and_numbers() {
    let expected: Vec<(String, u32)> = Reason::ALL
        .iter()
        .map(|reason| (format!("TOKENWARD_REASON_{}", reason.name().to_uppercase()), reason.number().into()))
        .collect();
    assert_eq!(enumeration("tokenward_reason"), expected);
}

#[test]
fn failures_have_the_cores_names() {
    let expected: Vec<(String, u32)> = std::iter::once("none")
        .chain(Failure::ALL.iter().map(|failure| failure.name()))
        .zip(0..)
        .map(|(name, number)| (format!("TOKENWARD_FAILURE_{}", name.to_uppercase()), number))
        .collect();
    assert_eq!(enumeration("tokenward_failure"), expected);
}

#[test]
fn results_know_their_names() {
    for (name, number) in enumeration("tokenward_result") {
        // SAFETY: a static string.
        let said = unsafe { std::ffi::CStr::from_ptr(tokenward::tokenward_result_name(number)) };
        assert_eq!(said.to_str().unwrap(), name);
    }
}

#[test]
fn the_soname_has_the_abis_major_number() {
    let major = tokenward::TOKENWARD_ABI_VERSION >> 16;
    let soname = format!("libtokenward.so.{major}");
    assert!(fs::read_to_string(root().join("ffi/build.rs")).unwrap().contains(&format!("soname,{soname}\"")));
    assert!(fs::read_to_string(root().join("ffi/Makefile")).unwrap().contains(&format!("SONAME = {soname}\n")));
}
