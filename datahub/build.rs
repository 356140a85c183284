//! Embeds the pages of `web/dist`, as `web/build.mjs` left them.
//!
//! Without them the hub is built all the same, so that nobody needs Node for the rest; it then
//! says on its pages how to build them.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let web = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../web");
    let dist = web.join("dist");
    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        println!("cargo::rerun-if-changed={}", dist.display());
        collect(&dist, &dist, &mut files)?;
        files.sort();
    } else {
        println!("cargo::rerun-if-changed={}", web.display());
        println!("cargo::warning=the hub is built without its pages; `make pages` builds them");
    }
    let mut table = String::from("&[\n");
    for file in &files {
        table.push_str(&entry(&dist, file)?);
    }
    table.push_str("]\n");
    let out = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    fs::write(out.join("pages.rs"), table)
}

/// Lists the files that have both compressed forms beside them.
fn collect(dist: &Path, folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for found in fs::read_dir(folder)? {
        let path = found?.path();
        if path.is_dir() {
            collect(dist, &path, files)?;
        } else if !matches!(
            path.extension().and_then(|it| it.to_str()),
            Some("gz" | "br")
        ) {
            let name = path.strip_prefix(dist).map_err(io::Error::other)?;
            files.push(name.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

fn entry(dist: &Path, name: &str) -> io::Result<String> {
    let path = dist.join(name);
    let mut hasher = DefaultHasher::new();
    fs::read(&path)?.hash(&mut hasher);
    let path = path.canonicalize()?;
    let path = path.to_string_lossy();
    Ok(format!(
        "    File {{ name: {name:?}, etag: \"\\\"{:016x}\\\"\",\n        plain: include_bytes!({:?}),\n        \
         gzip: include_bytes!({:?}),\n        brotli: include_bytes!({:?}) }},\n",
        hasher.finish(),
        path,
        format!("{path}.gz"),
        format!("{path}.br"),
    ))
}
