//! Compiles `loopwright/v1/*.proto` without `protoc`: Rust types, client and server stubs, their proto3
//! JSON, and the descriptor set that reflection serves.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message as _;

const PACKAGE: &str = "loopwright/v1";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = proto_files(Path::new(PACKAGE))?;
    println!("cargo:rerun-if-changed={PACKAGE}");
    println!("cargo:rerun-if-changed=build.rs");

    let mut fds = protox::Compiler::new(["."])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?
        .file_descriptor_set();

    let mut config = tonic_prost_build::Config::new();
    config.compile_well_known_types();
    config.extern_path(".google.protobuf", "::pbjson_types");
    config.bytes(["."]);
    config.btree_map(["."]);
    tonic_prost_build::configure().compile_fds_with_config(fds.clone(), config)?;

    // Reflection does not serve comments: without them the set is a fraction of the size.
    for file in &mut fds.file {
        file.source_code_info = None;
    }
    let descriptors = fds.encode_to_vec();
    std::fs::write(out.join("loopwright.v1.descriptor.bin"), &descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .btree_map(["."])
        .ignore_unknown_fields()
        .ignore_unknown_enum_variants()
        .build(&[".loopwright.v1"])?;
    Ok(())
}

fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    // Directory order differs between machines; the generated code must not.
    files.sort();
    Ok(files)
}
