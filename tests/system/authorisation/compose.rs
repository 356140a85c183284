//! `docker-compose.yml` without Docker: the services as processes, with the environment that stands
//! there and the files that its first start makes.

use std::{path::Path, process::Command};

use rovi_common::{
    local::{self, ServerProcess},
    testing::{self, eventually},
};
use system_tests::binary;

use super::support::PATIENCE;

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
const ROLES: &str = include_str!("../../../deploy/postgres/roles.sql");

/// What the environment of a container says, with the places of this machine.
struct Places {
    folder: tempfile::TempDir,
    replaced: Vec<(&'static str, String)>,
}

impl Places {
    /// Reads the environment of a service.
    fn environment(&self, service: &str) -> Vec<(String, String)> {
        let begin = format!("\n  {service}:\n");
        let (_, block) = COMPOSE.split_once(&begin).unwrap();
        let lines = block
            .lines()
            .take_while(|line| line.is_empty() || line.starts_with("   "));
        let lines = lines.skip_while(|line| *line != "    environment:").skip(1);
        let lines = lines.take_while(|line| line.starts_with("      "));
        let settings = lines.filter_map(|line| line.trim().split_once(": "));
        let own = self.folder.path().join(service).display().to_string();
        settings
            .map(|(name, value)| {
                let value = value.trim_matches('"').replace("/run/rovi", &own);
                let replace = |value: String, (from, to): &(&str, String)| value.replace(from, to);
                (name.to_owned(), self.replaced.iter().fold(value, replace))
            })
            .collect()
    }

    fn command(&self, program: &str, service: &str) -> Command {
        let mut command = Command::new(binary(program));
        command.current_dir(self.folder.path());
        command.envs(self.environment(service));
        command
    }

    fn secret(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.path().join(name)).unwrap();
        text.trim().to_owned()
    }

    fn rovicli(&self, url: &str, settings: &Path, args: &[&str]) -> std::process::Output {
        let mut command = self.command("rovicli", "rovicli");
        command
            .env("XDG_CONFIG_HOME", settings)
            .args(["--url", url]);
        command.args(args).output().unwrap()
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one start, in its order")]
async fn the_containers_start_with_the_files_of_the_first_start_and_ask_everybody() {
    let postgres = testing::postgres();
    let (hub_port, twin_port) = (local::free_port().unwrap(), local::free_port().unwrap());
    let hub = format!("http://127.0.0.1:{hub_port}");
    let database = postgres.server.url();
    let database = database
        .split_once('@')
        .unwrap()
        .1
        .rsplit_once('/')
        .unwrap()
        .0;
    let mut places = Places {
        folder: tempfile::tempdir().unwrap(),
        replaced: vec![
            ("postgres:5432", database.to_owned()),
            ("http://twin:8001", format!("http://127.0.0.1:{twin_port}")),
            ("http://datahub:8000", hub.clone()),
            ("0.0.0.0:8000", format!("127.0.0.1:{hub_port}")),
            ("0.0.0.0:8001", format!("127.0.0.1:{twin_port}")),
        ],
    };
    let folder = places.folder.path().to_owned();
    let out = folder.display().to_string();
    let made = places.rovicli(
        &hub,
        &folder,
        &["credentials", "--out", &out, "--hub", &hub],
    );
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let token = places.secret("admin/admin.token");
    assert!(
        !String::from_utf8_lossy(&made.stdout).contains(&token),
        "it is in no log"
    );

    let nats = testing::guarded_nats(&places.secret("nats/users.conf"));
    places
        .replaced
        .push(("nats://nats:4222", nats.server.url()));
    let mut owner = system_tests::Database::open(&postgres.server.url());
    owner.run(ROLES);
    for (role, file) in [("rovi_hub", "hub"), ("rovi_migrate", "migrate")] {
        let password = places.secret(&format!("postgres/{file}.password"));
        owner.run(&format!("ALTER ROLE {role} PASSWORD '{password}'"));
    }
    let migrated = places
        .command("datahub", "migrate")
        .arg("migrate")
        .output()
        .unwrap();
    assert!(
        migrated.status.success(),
        "{}",
        String::from_utf8_lossy(&migrated.stderr)
    );
    let start = |program: &'static str| {
        let log = folder.join(format!("{program}.log"));
        ServerProcess::spawn(program, places.command(program, program), &log).unwrap()
    };
    let services = [start("datahub"), start("twin")];
    let admin = folder.join("admin");
    eventually(PATIENCE, || async {
        let told = reqwest::get(format!("http://127.0.0.1:{twin_port}/ready")).await;
        let logs = || {
            services
                .each_ref()
                .map(|one| one.failed(String::new()).to_string())
        };
        match told {
            Ok(told) if told.status().is_success() => Ok(()),
            Ok(told) => Err(format!("{:?} {:?}", told.text().await, logs())),
            Err(error) => Err(format!("{error} {:?}", logs())),
        }
    })
    .await;
    let known = places.rovicli(&hub, &admin, &["status"]);
    assert!(
        known.status.success(),
        "{}",
        String::from_utf8_lossy(&known.stderr)
    );
    let unknown = places.rovicli(&hub, &folder, &["status"]);
    assert!(!unknown.status.success());
    assert_eq!(nats.server.refusals(), Vec::<String>::new());
}
