//! What the command line asks for.

use crate::cells::Cell;
use crate::certificate::Certificate;
use crate::machine::said;
use regex_lite::Regex;
use std::error::Error;

const USAGE: &str = "\
usage: run [quick | list | CELLS] [options]
  quick               a few cells and three rounds, in less than three minutes
  list                shows cells and servers
  CELLS               only the cells whose name matches this regular expression
  --servers REGEX     only these servers
  --rounds N          (default 5)
  --seconds S         of each measurement (default 0.6)
  --warm-up S         before it (default 0.15)
  --cores S,L         processors for server and load (default: the first two)
  --json FILE         where the results go
  --page FILE         where the report goes
  --report RESULTS    only makes the report, from results of before
usage: scale [--servers REGEX] [--seconds S] [--cores S,L] [--idle N]
  --idle N            the most idle connections (default 50000)
usage: fair [KINDS] [--rounds N] [--seconds S] [--warm-up S] [--cores S,L] [--loop SERVER]
  KINDS               only the floods whose name matches this regular expression
  --loop SERVER       the server that is compared (default lodger-epoll)";

pub(crate) struct Options {
    pub(crate) scale: bool,
    pub(crate) fair: bool,
    /// The server that is flooded.
    pub(crate) fair_loop: String,
    pub(crate) quick: bool,
    pub(crate) list: bool,
    cells: Option<Regex>,
    pub(crate) servers: Option<Regex>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) cores: Option<(usize, usize)>,
    pub(crate) idle: usize,
    pub(crate) json: String,
    pub(crate) page: String,
    pub(crate) report: Option<String>,
    /// Directories of release binaries: those of the benchmark, and those of the project.
    pub(crate) bin: String,
    pub(crate) root: String,
    /// Where the peers are that cargo does not build.
    pub(crate) peers: String,
    pub(crate) certificate: Certificate,
}

impl Options {
    pub(crate) fn from_args(arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        Self::parse(arguments).map_err(|problem| format!("{problem}\n{USAGE}").into())
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let own = std::env::current_exe()?;
        let mut options = Self {
            scale: false,
            fair: false,
            fair_loop: "lodger-epoll".into(),
            quick: false,
            list: false,
            cells: None,
            servers: None,
            rounds: 5,
            seconds: 0.6,
            warm_up: 0.15,
            cores: None,
            idle: 50_000,
            json: String::new(),
            page: String::new(),
            report: None,
            bin: own.parent().ok_or("no directory")?.to_string_lossy().into_owned(),
            root: "../target/release".into(),
            peers: said("peers/build", &["dir"]).unwrap_or_default(),
            certificate: Certificate::new()?,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "scale" => options.scale = true,
                "fair" => {
                    options.fair = true;
                    // Buffers of megabytes have to fill up, and few turns are slow ones.
                    (options.rounds, options.seconds, options.warm_up) = (3, 1.5, 0.8);
                }
                "--loop" => options.fair_loop = value()?,
                "list" => options.list = true,
                "--help" | "-h" => {
                    println!("{USAGE}");
                    drop(options);
                    std::process::exit(0);
                }
                "quick" => {
                    options.quick = true;
                    (options.rounds, options.seconds, options.warm_up) = (3, 0.4, 0.1);
                }
                "--servers" => options.servers = Some(Regex::new(&value()?)?),
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--warm-up" => options.warm_up = value()?.parse()?,
                "--idle" => options.idle = value()?.parse()?,
                "--json" => options.json = value()?,
                "--page" => options.page = value()?,
                "--report" => options.report = Some(value()?),
                "--cores" => {
                    let cores = value()?;
                    let (server, load) =
                        cores.split_once(',').ok_or("--cores takes two, with a comma between")?;
                    options.cores = Some((server.parse()?, load.parse()?));
                }
                other if other.starts_with('-') => return Err(format!("no such option: {other}").into()),
                cells => options.cells = Some(Regex::new(cells)?),
            }
        }
        options.default_files();
        Ok(options)
    }

    /// What is kept with the documentation is made by a run of everything, and by nothing less.
    fn default_files(&mut self) {
        let whole = !self.quick && self.cells.is_none() && self.servers.is_none();
        let directory = if whole { "../docs/performance" } else { "results" };
        for (file, name) in [(&mut self.json, "results.json"), (&mut self.page, "report.html")] {
            if file.is_empty() {
                *file = format!("{directory}/{name}");
            }
        }
    }

    /// A word of a server's command with the directories put in.
    pub(crate) fn placed(&self, word: &str) -> String {
        let word =
            word.replace("{bin}", &self.bin).replace("{root}", &self.root).replace("{peers}", &self.peers);
        let Certificate { chain, key } = &self.certificate;
        word.replace("{cert}", &chain.to_string_lossy()).replace("{key}", &key.to_string_lossy())
    }

    pub(crate) fn wants_name(&self, name: &str) -> bool {
        self.cells.as_ref().is_none_or(|regex| regex.is_match(name))
    }

    pub(crate) fn wants(&self, cell: &Cell) -> bool {
        match &self.cells {
            Some(regex) => regex.is_match(cell.name),
            None => !self.quick || cell.quick,
        }
    }
}
