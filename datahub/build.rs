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
    let out = env::var_os("OUT_DIR").map(PathBuf::from);
    let out = out.ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    let mut table = String::from("&[\n");
    for file in &files {
        table.push_str(&entry(&dist, &out, file)?);
    }
    table.push_str("]\n");
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

/// Copies a file and its compressed forms, so that pages built meanwhile disturb no compilation, and
/// names them.
fn entry(dist: &Path, out: &Path, name: &str) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(dist.join(name))?.hash(&mut hasher);
    let copy = |ending: &str| -> io::Result<String> {
        let copy = out.join(format!("{}{ending}", name.replace('/', "+")));
        fs::copy(dist.join(format!("{name}{ending}")), &copy)?;
        Ok(copy.to_string_lossy().into_owned())
    };
    let (plain, gzip, brotli) = (copy("")?, copy(".gz")?, copy(".br")?);
    Ok(format!(
        "    File {{ name: {name:?}, etag: \"\\\"{:016x}\\\"\",\n        plain: include_bytes!({plain:?}),\n        \
         gzip: include_bytes!({gzip:?}),\n        brotli: include_bytes!({brotli:?}) }},\n",
        hasher.finish(),
    ))
}
