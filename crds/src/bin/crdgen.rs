//! Writes the CustomResourceDefinitions into a directory: `cargo run -p liaison-crds --bin crdgen -- crds/yaml`.

use std::{error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory: PathBuf = std::env::args_os().nth(1).ok_or("which directory? such as crds/yaml")?.into();
    std::fs::create_dir_all(&directory)?;
    for (name, body) in liaison_crds::schema::all()? {
        std::fs::write(directory.join(name), body)?;
    }
    Ok(())
}
