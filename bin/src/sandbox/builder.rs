//! What a sandbox is made of, before it is made.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicU32},
    time::Duration,
};

use interrex_actors::env::{Env as _, SystemEnv};
use interrex_adapters::runtime;
use interrex_events::ClusterId;

use super::{
    AtTheEnd, Done, Sandbox, SandboxError, Settings,
    layout::Layout,
    plan::{self, MOST_NODES},
    ports::Ports,
    processes,
    programs::{Account, Programs, set_mode},
    template::{self, Maker, Template},
};

/// Folder that holds templates for all sandboxes that name it.
const CACHE: &str = "INTERREX_TEST_CACHE";
/// Letters that would mean something else in one of the servers' configuration files.
const UNWELCOME: [char; 9] = ['"', '\'', '\\', '$', '%', '{', '}', '\n', '\r'];

/// A sandbox in the making.
#[derive(Debug, Clone)]
pub struct Builder {
    program: PathBuf,
    supervisor: Option<PathBuf>,
    folder: Option<PathBuf>,
    nodes: usize,
    redis: bool,
    radius: bool,
    cache: Option<PathBuf>,
    settings: Settings,
}

impl Builder {
    pub(super) fn new(program: PathBuf) -> Self {
        Self {
            program,
            supervisor: None,
            folder: None,
            nodes: 2,
            redis: true,
            radius: true,
            cache: std::env::var_os(CACHE).map(PathBuf::from).filter(|cache| !cache.as_os_str().is_empty()),
            settings: Settings {
                threshold: Duration::from_secs(2),
                probe_interval: Duration::from_millis(200),
                probe_timeout: Duration::from_millis(1_000),
                startup_wait: Duration::from_secs(3),
                patience: Duration::from_secs(30),
            },
        }
    }

    /// Where it lives: empty, or made now. By default a new folder among the machine's temporary ones.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// How many nodes: two by default, one to three.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes.clamp(1, MOST_NODES);
        self
    }

    /// How long main may be silent; 2 s by default.
    #[must_use]
    pub fn threshold(mut self, threshold: Duration) -> Self {
        self.settings.threshold = threshold;
        self
    }

    /// How often peers are probed; 200 ms by default.
    #[must_use]
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.settings.probe_interval = interval;
        self
    }

    /// When one probe is given up; 1 s by default.
    #[must_use]
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.settings.probe_timeout = timeout;
        self
    }

    /// How long a starting main waits for a peer to confirm it; 3 s by default.
    #[must_use]
    pub fn startup_wait(mut self, wait: Duration) -> Self {
        self.settings.startup_wait = wait;
        self
    }

    /// How long the `wait_` functions wait; 30 s by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }

    /// PostgreSQL alone: faster to start, and nothing else to install.
    #[must_use]
    pub fn postgres_only(mut self) -> Self {
        (self.redis, self.radius) = (false, false);
        self
    }

    /// Without RADIUS.
    #[must_use]
    pub fn without_radius(mut self) -> Self {
        self.radius = false;
        self
    }

    /// Without Redis.
    #[must_use]
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }

    /// Another program for the supervisors; it is called as `interrex supervise` is.
    #[must_use]
    pub fn supervisor(mut self, program: impl Into<PathBuf>) -> Self {
        self.supervisor = Some(program.into());
        self
    }

    /// Folder for what sandboxes can share; by default what `INTERREX_TEST_CACHE` names, or none.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = Some(cache.into());
        self
    }

    /// Whether the folder that was named can be used; nothing is made yet.
    ///
    /// # Errors
    /// It cannot be read, is not empty, or its name would not survive in the servers' configurations.
    pub fn check_folder(&self) -> Done<()> {
        self.folder.as_deref().map_or(Ok(()), |wanted| usable_folder(wanted).map(drop))
    }

    /// Lays everything out. Nothing is started yet, so that configurations can still be changed.
    ///
    /// # Errors
    /// A program is missing, the folder cannot be used, or PostgreSQL's programs fail.
    pub async fn build(self) -> Done<Sandbox> {
        let programs = Programs::find(self.redis, self.radius)?;
        let account = Account::choose()?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(1))
            .build()
            .map_err(|error| SandboxError::failed("making an HTTP client", error))?;
        let ports = Ports::reserve()?;
        let (folder, made_folder) = open_folder(self.folder.as_deref())?;
        let mut sandbox = Sandbox {
            nodes: plan::nodes(&folder, self.nodes, &ports),
            folder,
            made_folder,
            supervisor: self.supervisor.unwrap_or_else(|| self.program.clone()),
            program: self.program,
            programs,
            account,
            passwords: template::Passwords::none(),
            cluster_id: ClusterId(SystemEnv.run_id().0),
            settings: self.settings,
            ports,
            supervisors: Mutex::new(BTreeMap::new()),
            environment: Mutex::new(BTreeMap::new()),
            http,
            writers: AtomicU32::new(0),
            at_the_end: AtTheEnd::Remove,
        };
        // from here on, what is left undone is taken away again when `sandbox` is dropped
        sandbox.lay_out(self.cache.as_deref()).await?;
        Ok(sandbox)
    }
}

impl Sandbox {
    async fn lay_out(&mut self, cache: Option<&Path>) -> Done<()> {
        check_way(&self.folder, self.account).await?;
        let own = self.folder.join("template");
        let template = self.template(cache, &own).await?;
        self.passwords.clone_from(&template.passwords);
        let layout = Layout {
            settings: &self.settings,
            programs: &self.programs,
            account: self.account,
            template: &template,
            cluster_id: self.cluster_id,
            cluster_secret: &template::secret(),
            radius_secret: &template::secret(),
            nodes: &self.nodes,
        };
        for node in &self.nodes {
            layout.write(node).await?;
        }
        super::remove(&own)
    }

    async fn template(&self, cache: Option<&Path>, own: &Path) -> Done<Template> {
        let maker = Maker { programs: &self.programs.postgres, account: self.account, mark: &self.folder };
        match cache {
            Some(cache) => {
                let failed = |error| SandboxError::failed(format!("creating {}", cache.display()), error);
                fs::create_dir_all(cache).map_err(failed)?;
                check_way(cache, self.account).await?;
                maker.cached(&fs::canonicalize(cache).map_err(failed)?).await
            }
            None => maker.make(own).await,
        }
    }
}

/// The folder, and whether it was made now.
fn open_folder(wanted: Option<&Path>) -> Done<(PathBuf, bool)> {
    let Some(wanted) = wanted else {
        let folder = tempfile::Builder::new().prefix("interrex-").tempdir();
        let folder = folder.map_err(|error| SandboxError::failed("making a folder", error))?.keep();
        set_mode(&folder, 0o755)?;
        return Ok((checked(processes::real_path(&folder))?, true));
    };
    let failed = |error| SandboxError::failed(using(wanted), error);
    let wanted = usable_folder(wanted)?;
    let is_new = !wanted.exists();
    if is_new {
        fs::create_dir_all(&wanted).map_err(failed)?;
        set_mode(&wanted, 0o755)?;
    }
    Ok((checked(fs::canonicalize(&wanted).map_err(failed)?)?, is_new))
}

/// What the folder will be called, before anything is made. Other files are left alone.
fn usable_folder(wanted: &Path) -> Done<PathBuf> {
    let failed = |error| SandboxError::failed(using(wanted), error);
    let folder = checked(std::path::absolute(wanted).map_err(failed)?)?;
    if folder.exists() && fs::read_dir(&folder).map_err(failed)?.next().is_some() {
        let words = "it is not empty; name an empty folder, or one that does not exist yet";
        return Err(SandboxError::failed(using(wanted), words));
    }
    Ok(folder)
}

fn using(folder: &Path) -> String {
    format!("using the folder {}", folder.display())
}

fn checked(folder: PathBuf) -> Done<PathBuf> {
    let text = folder.to_str().unwrap_or("\"");
    if text.contains(UNWELCOME) || text.contains(' ') {
        return Err(SandboxError::failed(
            format!("using the folder {}", folder.display()),
            "the servers' configuration files cannot hold such a name; choose one of letters, digits and - _ . /",
        ));
    }
    Ok(folder)
}

/// Can the servers' user get there? A folder below a home directory is often closed.
async fn check_way(folder: &Path, account: Account) -> Done<()> {
    let mut command = account.run_as.command("test");
    command.arg("-x").arg(folder);
    let way = runtime::run(command, "test", Duration::from_secs(10)).await;
    way.map(drop).map_err(|_| {
        SandboxError::failed(
            format!("using the folder {}", folder.display()),
            format!(
                "the servers run {}, and that user may not enter it; choose a folder that every user may enter, such as one under \
                 /tmp",
                account.in_words()
            ),
        )
    })
}

/// The value that a dotted key names: a new one where its section is there.
pub(super) fn place<'a>(document: &'a mut toml::Value, key: &str) -> Option<&'a mut toml::Value> {
    let (sections, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut value = document;
    for part in sections.split('.').filter(|part| !part.is_empty()) {
        value = match value {
            toml::Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            toml::Value::Table(table) => table.get_mut(part)?,
            _ => return None,
        };
    }
    match value {
        toml::Value::Table(table) => Some(table.entry(last).or_insert(toml::Value::Boolean(false))),
        toml::Value::Array(items) => items.get_mut(last.parse::<usize>().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_key_finds_values_in_sections_and_lists() {
        let text = "[failover]\na = 1\n[[peers]]\nid = 1\n[[peers]]\nid = 3\n";
        let mut document = toml::Value::Table(toml::from_str(text).unwrap());
        *place(&mut document, "peers.1.postgres").unwrap() = "there".into();
        *place(&mut document, "failover.a").unwrap() = false.into();
        assert!(place(&mut document, "peers.2.postgres").is_none());
        assert!(place(&mut document, "redis.port").is_none());
        assert_eq!(
            toml::to_string(&document).unwrap(),
            "[failover]\na = false\n\n[[peers]]\nid = 1\n\n[[peers]]\nid = 3\npostgres = \"there\"\n"
        );
    }

    #[test]
    fn a_folder_that_is_not_empty_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        let error = open_folder(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("it is not empty"), "{error}");
        assert!(checked(PathBuf::from("/tmp/it's")).is_err());
    }
}
