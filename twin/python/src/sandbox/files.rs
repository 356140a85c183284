//! Which files a script reaches, by Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

/// What every interpreter reads, wherever it stands.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
];

/// Leaves `readable` for reading and `folder` for everything; newer kernels also deny TCP and signals.
pub(super) fn restrict(readable: &[PathBuf], folder: &Path) -> Result<(), String> {
    match ruleset(readable, folder) {
        Ok(RulesetStatus::NotEnforced) => Err("it is not enforced".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn ruleset(readable: &[PathBuf], folder: &Path) -> Result<RulesetStatus, RulesetError> {
    // What a kernel does not know yet is left out: seccomp denies the calls that it would be for.
    let newest = ABI::V6;
    let read = AccessFs::from_read(newest);
    let system = SYSTEM.iter().map(Path::new);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .add_rules(path_beneath_rules(system, read))?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules([folder], own(newest)))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Everything but devices, sockets, pipes with names and programs.
fn own(newest: ABI) -> landlock::BitFlags<AccessFs> {
    let never = AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeSock
        | AccessFs::MakeFifo
        | AccessFs::Execute
        | AccessFs::IoctlDev;
    AccessFs::from_all(newest) & !never
}
