//! What docs/OPERATIONS.md says about setting up two nodes, done word for word: Debian's layout, its own tools where the test is
//! root, and the same layout made by hand where it is not.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use interrex::sandbox::{Done, SandboxError, until};
use interrex_tests::{interrex, run};
use rustix::process::{Pid, Signal, geteuid, kill_process};

const LIMIT: Duration = Duration::from_secs(60);
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");
/// The section that is done.
const SECTION: &str = "## Setting up two nodes";

/// Two machines in one: each has its own names for what the page calls `/etc/interrex`, `15 main` and so on.
struct Machines {
    folder: PathBuf,
    programs: PathBuf,
    ports: [u16; 4],
    supervisors: Vec<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Alpha,
    Beta,
}

impl On {
    fn name(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::Beta => "beta",
        }
    }
}

/// The fenced blocks of the section: language and text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let (_, section) = OPERATIONS.split_once(SECTION).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let fences: Vec<&str> = section.split("\n```").collect();
    fences.iter().skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect()
}

impl Machines {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("interrex-").tempdir().unwrap().keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
        let versions = fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
        let mut versions: Vec<u32> =
            versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        versions.sort_unstable();
        let programs = format!("/usr/lib/postgresql/{}/bin", versions.last().unwrap()).into();
        Self { folder, programs, ports, supervisors: Vec::new() }
    }

    fn version(&self) -> &str {
        self.programs.parent().unwrap().file_name().unwrap().to_str().unwrap()
    }

    /// A name that no other cluster of this machine has.
    fn cluster(&self, on: On) -> String {
        let folder = self.folder.file_name().unwrap().to_str().unwrap();
        format!("{}_{}", folder.replace('-', "_"), on.name())
    }

    fn at(&self, on: On, name: &str) -> PathBuf {
        self.folder.join(on.name()).join(name)
    }

    /// Where PostgreSQL's configuration is.
    fn settings(&self, on: On) -> PathBuf {
        if geteuid().is_root() {
            Path::new("/etc/postgresql").join(self.version()).join(self.cluster(on))
        } else {
            self.at(on, "settings")
        }
    }

    /// The page's names in this machine's.
    fn translated(&self, on: On, text: &str) -> String {
        let [postgres_alpha, postgres_beta, alpha, beta] = self.ports;
        let port = if on == On::Alpha { postgres_alpha } else { postgres_beta };
        let shown = |path: PathBuf| path.display().to_string();
        text.replace("/etc/postgresql/15/main", &shown(self.settings(on)))
            .replace("/var/lib/postgresql/15/main", &shown(self.at(on, "cluster/data")))
            .replace("/etc/interrex", &shown(self.at(on, "etc")))
            .replace("/var/lib/interrex", &shown(self.at(on, "lib")))
            .replace("15 main", &format!("{} {}", self.version(), self.cluster(on)))
            .replace("-h 10.0.0.1", &format!("-h 127.0.0.1 -p {postgres_alpha}"))
            .replace("10.0.0.1:7400", &format!("127.0.0.1:{alpha}"))
            .replace("10.0.0.2:7400", &format!("127.0.0.1:{beta}"))
            .replace("10.0.0.2:5432", &format!("127.0.0.1:{postgres_beta}"))
            .replace("10.0.0.1:5432", &format!("127.0.0.1:{postgres_alpha}"))
            .replace("10.0.0.1", "127.0.0.1")
            .replace("10.0.0.2", "127.0.0.1")
            .replace("[postgres]\n", &format!("[postgres]\nport = {port}\n"))
    }

    /// What the page takes for granted on a machine: the package's own cluster; and what this machine has not.
    fn shell(&self, on: On, script: &str) {
        let [postgres_alpha, postgres_beta, ..] = self.ports;
        let port = if on == On::Alpha { postgres_alpha } else { postgres_beta };
        let by_hand = if geteuid().is_root() {
            String::new()
        } else {
            // no other user, and no cluster that Debian's tools may know
            format!(
                "chown() {{ :; }}\n\
                 runuser() {{ shift 3; PGHOST={folder} PGUSER=postgres \"$@\"; }}\n\
                 pg_ctlcluster() {{\n\
                   pg_ctl -D {data} -o \"-c config_file={settings}/postgresql.conf\" -l {folder}/log -w $3 >{folder}/ctl\n\
                 }}\n",
                folder = self.at(on, "").display(),
                data = self.at(on, "cluster/data").display(),
                settings = self.settings(on).display(),
            )
        };
        let script = format!(
            "set -eu\nexport PGPORT={port} PATH={programs}:$PATH\nsystemctl() {{ :; }}\ninterrex() {{ :; }}\n{by_hand}{script}",
            programs = self.programs.display()
        );
        let ended = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "on {}: {said}\n{script}", on.name());
    }

    /// A cluster as the package makes one.
    fn install(&self, on: On) {
        let (data, settings) = (self.at(on, "cluster/data"), self.settings(on));
        let port = self.ports[usize::from(on == On::Beta)];
        let (data, settings, folder) = (data.display(), settings.display(), self.at(on, ""));
        fs::create_dir_all(self.at(on, "cluster")).unwrap();
        let folder = folder.display();
        if geteuid().is_root() {
            let (version, cluster) = (self.version(), self.cluster(on));
            self.shell(
                on,
                &format!(
                    "chown postgres: {folder}/cluster\n\
                     pg_createcluster {version} {cluster} -d {data} -p {port} -l {folder}/cluster/log --locale C.UTF-8 --start-conf auto"
                ),
            );
        } else {
            self.shell(
                on,
                &format!(
                    "initdb -D {data} -U postgres -A trust --no-sync --locale C.UTF-8\n\
                     mkdir {settings}\n\
                     mv {data}/postgresql.conf {data}/pg_hba.conf {data}/pg_ident.conf {settings}\n\
                     printf \"data_directory = '{data}'\\nhba_file = '{settings}/pg_hba.conf'\\n\\
                     ident_file = '{settings}/pg_ident.conf'\\nport = {port}\\nunix_socket_directories = '{folder}'\\n\" \
                     >>{settings}/postgresql.conf\n"
                ),
            );
        }
    }

    /// The configuration of the page; beta's as the page says that it differs.
    fn configure(&self, on: On, text: &str) {
        let mut document: toml::Table = toml::from_str(&self.translated(on, text)).unwrap();
        if on == On::Beta {
            let alphas: toml::Table = toml::from_str(&self.translated(On::Alpha, text)).unwrap();
            let (node, peer) = (&alphas["node"], &alphas["peers"][0]);
            let mut main = toml::Table::new();
            for (key, from) in [("id", node), ("name", node)] {
                main.insert(key.into(), from[key].clone());
            }
            let [postgres_alpha, ..] = self.ports;
            main.insert("address".into(), node["listen"].clone());
            main.insert("postgres".into(), format!("127.0.0.1:{postgres_alpha}").into());
            main.insert("main".into(), true.into());
            let own = document["node"].as_table_mut().unwrap();
            own.insert("id".into(), peer["id"].clone());
            own.insert("name".into(), peer["name"].clone());
            own.insert("listen".into(), peer["address"].clone());
            own.insert("role".into(), "secondary".into());
            document["peers"] = vec![toml::Value::Table(main)].into();
        }
        if !geteuid().is_root() {
            let file = self.settings(on).join("postgresql.conf").display().to_string();
            document["postgres"].as_table_mut().unwrap().insert("config_file".into(), file.into());
        }
        fs::write(self.config(on), toml::to_string(&document).unwrap()).unwrap();
    }

    fn config(&self, on: On) -> PathBuf {
        self.at(on, "etc/interrex.toml")
    }

    /// A command of the program on a machine.
    fn interrex(&self, on: On, arguments: &[&str]) -> Command {
        let mut command = Command::new(interrex());
        command.args(arguments).arg("--config").arg(self.config(on)).stdin(Stdio::null());
        command
    }

    fn ask(&self, on: On, arguments: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.interrex(on, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&stdout).into_owned();
        if status.success() { Ok(text) } else { Err(text + &String::from_utf8_lossy(&stderr)) }
    }

    /// Both are as they should be, by the program that proves it.
    async fn ready(&self) -> Done<()> {
        for on in [On::Alpha, On::Beta] {
            until(format!("{} is ready", on.name()), LIMIT, || async { self.ask(on, &["doctor"]) }).await?;
        }
        Ok(())
    }

    fn supervise(&mut self, on: On) {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.at(on, "supervisor.log")).unwrap();
        let mut command = self.interrex(on, &["supervise"]);
        // the environment overrides any key
        command.envs([
            ("INTERREX_FAILOVER_AUTO_FAILOVER_THRESHOLD_SECONDS", "2"),
            ("INTERREX_FAILOVER_PROBE_INTERVAL", "200ms"),
            ("INTERREX_FAILOVER_PROBE_TIMEOUT", "500ms"),
            ("INTERREX_FAILOVER_STARTUP_WAIT", "1s"),
            ("INTERREX_FAILOVER_COOL_DOWN", "1s"),
            ("INTERREX_REJOIN_AUTOMATIC", "true"),
        ]);
        self.supervisors.push(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn postmaster(&self, on: On) -> Option<Pid> {
        let file = fs::read_to_string(self.at(on, "cluster/data/postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.trim().parse().ok()?)
    }

    fn end_supervisors(&mut self) {
        for mut supervisor in self.supervisors.drain(..) {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        self.end_supervisors();
        for on in [On::Alpha, On::Beta] {
            if let Some(postmaster) = self.postmaster(on) {
                let _ = kill_process(postmaster, Signal::QUIT);
            }
            if geteuid().is_root() {
                let _ = fs::remove_dir_all(self.settings(on));
            }
        }
        if std::thread::panicking() {
            return;
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn two_nodes_set_up_as_the_page_says_change_places_fail_over_and_come_back() {
    run(async {
        let mut machines = Machines::new();
        for on in [On::Alpha, On::Beta] {
            machines.install(on);
        }
        let (mut shell, mut configured) = (0, 0);
        for (language, text) in blocks() {
            let first = text.lines().next().unwrap();
            // `# on alpha and beta: what for`
            let meant = |on: &On| first.split(':').next().unwrap().contains(on.name());
            let both = [On::Alpha, On::Beta];
            match language {
                "sh" if text.contains("interrex doctor") || text.contains("interrex config") => {}
                "sh" => {
                    shell += 1;
                    both.iter().filter(|on| meant(on)).for_each(|on| {
                        machines.shell(*on, &machines.translated(*on, text));
                    });
                }
                "toml" => {
                    configured += 1;
                    both.iter().for_each(|on| machines.configure(*on, text));
                }
                "ini" => assert!(text.contains("KillMode=process")),
                other => return Err(SandboxError::failed("reading the page", format!("a block of {other}"))),
            }
        }
        assert_eq!((shell, configured), (5, 1), "the page lost a block that this test does");

        let checked = machines.ask(On::Alpha, &["config", "check"]).unwrap();
        let file = machines.settings(On::Alpha).join("postgresql.conf");
        assert!(checked.contains(&format!("config_file = \"{}\"", file.display())), "{checked}");
        assert_eq!(checked.contains("postgres.config_file was found"), geteuid().is_root(), "{checked}");
        for on in [On::Alpha, On::Beta] {
            machines.supervise(on);
        }
        machines.ready().await?;
        if geteuid().is_root() {
            let listed = Command::new("pg_lsclusters").arg("-h").output().unwrap();
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let own = listed.lines().find(|line| line.contains(&machines.cluster(On::Alpha))).unwrap();
            assert!(own.contains("online"), "{own}");
        }

        // the standby of pg_basebackup -R has no application_name of ours, and is known by its slot
        machines.ask(On::Alpha, &["switchover", "--to", "beta"]).unwrap();
        machines.ready().await?;
        machines.ask(On::Beta, &["switchover", "--to", "alpha"]).unwrap();
        machines.ready().await?;

        // a main that died is recovered, rewound and started with its configuration
        let alpha = machines.supervisors.remove(0);
        for pid in [Pid::from_raw(i32::try_from(alpha.id()).unwrap()), machines.postmaster(On::Alpha)] {
            kill_process(pid.unwrap(), Signal::KILL).unwrap();
        }
        let mut alpha = alpha;
        alpha.wait().unwrap();
        let promoted = || async {
            let status = machines.ask(On::Beta, &["run", "show"])?;
            if status.contains("failover") && status.contains("completed") { Ok(()) } else { Err(status) }
        };
        until("beta takes over", LIMIT, promoted).await?;
        machines.supervise(On::Alpha);
        machines.ready().await
    });
}
