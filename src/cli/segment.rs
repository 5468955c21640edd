//! `rtformer segment`: photos in, masks out.

mod emit;
mod inputs;
mod outputs;
mod pipeline;
mod report;

use std::collections::VecDeque;
use std::fs;
use std::io::{Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;
use rtformer::files::read_within;
use rtformer::pixels::{Decoder, Image};
use rtformer::{Error, Scene, Segmenter, Size};

use super::console::Console;
use super::model::{DeviceArgs, ModelArgs, opened};
use super::photos::{self, PhotoArgs};
use super::{Outcome, batch, misuse};
use emit::Emit;
use inputs::Found;

/// Segment photos: write masks, overlays and more
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Photos, folders (searched recursively), globs, list files (.txt or .lst), and `-` for standard input
    #[arg(value_name = "INPUT", required_unless_present = "list")]
    inputs: Vec<PathBuf>,

    /// A list file with any name: one photo per line, or a photo and its labels, which are ignored; relative paths start at the
    /// list's folder or the current folder
    #[arg(long, value_name = "FILE")]
    list: Vec<PathBuf>,

    /// The folder to write to; it mirrors the input folders
    #[arg(short, long, value_name = "FOLDER", required_unless_present_any = ["dry_run", "json"])]
    out: Option<PathBuf>,

    /// What to write of each photo [default: mask,overlay, or nothing without --out]
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',', requires = "out")]
    emit: Vec<Emit>,

    /// Print one JSON object a photo on standard output
    #[arg(long)]
    json: bool,

    /// How strongly the overlay shows the classes' colours, 0 to 1
    #[arg(long, value_name = "ALPHA", default_value_t = 0.5, value_parser = fraction)]
    alpha: f32,

    /// Pixels whose class is less probable than this become the ignore id
    #[arg(long, value_name = "P", value_parser = fraction)]
    reject_below: Option<f32>,

    /// The size at which the network sees a photo: native, WxH, or within:WxH (masks keep the photo's size)
    #[arg(long, value_name = "SIZE", default_value = "native")]
    size: Size,

    /// Photos that are given to the network together, where neighbours have one size: 1 on CPUs, 8 on GPUs unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,

    /// Skip photos whose outputs are all there
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,

    /// Replace outputs that are there
    #[arg(long)]
    overwrite: bool,

    /// Stop at the first photo that fails
    #[arg(long)]
    fail_fast: bool,

    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    photos: PhotoArgs,

    #[command(flatten)]
    model: ModelArgs,
}

fn fraction(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{value} is not between 0 and 1")) }
}

/// A photo to do, and the stem of what is written of it.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    stem: PathBuf,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let emits = args.emits();
    let Found { inputs, failures, repeated, passed_over, special } =
        inputs::find(&args.inputs, &args.list, args.out.as_deref());
    for (count, what) in [
        (repeated, "paths were named twice"),
        (passed_over, "files in folders are no images"),
        (special, "pipes, sockets and devices in folders were skipped"),
    ] {
        if count > 0 {
            console.detail(&format!("{count} {what}"));
        }
    }
    let places: Vec<_> = inputs.iter().map(|input| input.place.as_path()).collect();
    let stems = outputs::stems(args.out.as_deref().unwrap_or(Path::new("")), &places);
    let jobs = inputs.into_iter().zip(stems).map(|(input, stem)| Job { path: input.path, stem });
    let (jobs, skipped) = args.open_jobs(jobs.collect(), &emits)?;

    let mut tally = Tally { done: 0, skipped, failed: 0 };
    for (path, reason) in &failures {
        tally.fail(args, console, path, &format!("{}: {reason}", path.display()))?;
    }
    if args.dry_run {
        for job in &jobs {
            let written: Vec<_> = emits.iter().map(|emit| emit.path(&job.stem).display().to_string()).collect();
            writeln!(stdout(), "{} -> {}", job.path.display(), written.join(", "))?;
        }
    } else if !(jobs.is_empty() || args.fail_fast && tally.failed > 0) {
        let stop = stop_on_interrupt()?;
        let run = Run { args, console, emits, segmenter: args.segmenter()?, stop };
        run.check()?;
        console.note(&run.segmenter.to_string());
        if let Some(out) = &args.out {
            fs::create_dir_all(out).map_err(Error::writing(out))?;
            if args.resume {
                outputs::sweep(out);
            }
        }
        run.all(jobs, &mut tally)?;
        if run.stop.interrupted() {
            return Ok(Outcome::Interrupted);
        }
    }
    Ok(if tally.failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

impl Args {
    pub(super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }

    fn emits(&self) -> Vec<Emit> {
        let mut emits = match (&self.emit[..], &self.out) {
            ([], None) if !self.dry_run => Vec::new(),
            ([], _) => vec![Emit::Mask, Emit::Overlay],
            (some, _) => some.to_vec(),
        };
        let mut seen = Vec::new();
        emits.retain(|emit| {
            !seen.contains(emit) && {
                seen.push(*emit);
                true
            }
        });
        // The JSON comes last: it tells how long writing the others took.
        emits.sort_by_key(|emit| *emit == Emit::Json);
        emits
    }

    /// The jobs that are left to do, and how many are done already.
    fn open_jobs(&self, mut jobs: Vec<Job>, emits: &[Emit]) -> anyhow::Result<(Vec<Job>, usize)> {
        let all = jobs.len();
        if self.resume {
            jobs.retain(|job| emits.is_empty() || !emits.iter().all(|emit| emit.path(&job.stem).exists()));
        } else if !self.overwrite {
            let there = jobs.iter().flat_map(|job| emits.iter().map(|emit| emit.path(&job.stem)));
            let mut there = there.filter(|path| path.exists());
            if let Some(first) = there.next() {
                let (first, more) = (first.display(), there.count());
                return Err(misuse(format!(
                    "{first} and {more} more outputs are there already; --resume skips photos that are done, --overwrite does \
                     them again"
                )));
            }
        }
        let skipped = all - jobs.len();
        Ok((jobs, skipped))
    }

    fn segmenter(&self) -> anyhow::Result<Segmenter> {
        let emits = self.emits();
        let wants_confidence = self.json || emits.iter().any(|emit| matches!(emit, Emit::Confidence | Emit::Json));
        let mut builder = self.model.builder()?.size(self.size).confidence(wants_confidence);
        builder = builder.logits(emits.contains(&Emit::Logits));
        if let Some(probability) = self.reject_below {
            builder = builder.reject_below(probability);
        }
        opened(builder.build())
    }
}

/// How many photos went which way.
struct Tally {
    done: usize,
    skipped: usize,
    failed: usize,
}

impl Tally {
    fn fail(&mut self, args: &Args, console: &Console, path: &Path, reason: &str) -> anyhow::Result<()> {
        self.failed += 1;
        console.error(reason);
        if args.json && !args.dry_run {
            writeln!(stdout(), "{}", report::failure(path, reason))?;
        }
        Ok(())
    }
}

/// A run with everything that its stages share.
struct Run<'a> {
    args: &'a Args,
    console: &'a Console,
    emits: Vec<Emit>,
    segmenter: Segmenter,
    stop: Stop,
}

impl Run<'_> {
    /// Refuses, before the first photo, what no photo could be given.
    fn check(&self) -> anyhow::Result<()> {
        let dataset = self.segmenter.dataset();
        if self.emits.contains(&Emit::Labelid) && !dataset.classes.iter().all(|class| class.label_id.is_some()) {
            return Err(misuse(format!(
                "--emit labelid: data set `{}` has no label ids of its own; leave it out, or use weights of Cityscapes",
                dataset.name
            )));
        }
        Ok(())
    }

    /// Decodes, segments and encodes, each while the others do; reports in the order of the jobs.
    fn all(&self, jobs: Vec<Job>, tally: &mut Tally) -> anyhow::Result<()> {
        let started = Instant::now();
        let bar = self.console.progress(jobs.len() as u64, "photos");
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Full-size logits are large, 160 MB a Cityscapes frame: fewer of them wait.
        let encoders = if self.emits.contains(&Emit::Logits) { 1 } else { cores.min(4) };
        let done = thread::scope(|scope| -> anyhow::Result<()> {
            let open = jobs.into_iter().take_while(|_| !self.stop.asked());
            let decoded = pipeline::ordered(scope, cores.min(4), 2, open, |job| {
                let image = read(&job.path, self.args.photos.decoder());
                if let Some(warning) = image.as_ref().ok().and_then(|image| photos::warning(&job.path, image)) {
                    self.console.note(&warning);
                }
                (job, image)
            });
            let segmented = self.segmented(decoded);
            for (path, encoded) in
                pipeline::ordered(scope, encoders, 1, segmented, |(job, seen)| self.encode(job, seen))
            {
                bar.inc(1);
                match encoded {
                    Ok(line) => {
                        tally.done += 1;
                        self.console.detail(&format!("{} done", path.display()));
                        if self.args.json {
                            writeln!(stdout(), "{line}")?;
                        }
                    }
                    Err(error) => {
                        tally.fail(self.args, self.console, &path, &format!("{:#}", anyhow::Error::from(error)))?;
                        if self.args.fail_fast {
                            self.stop.ask();
                        }
                    }
                }
            }
            Ok(())
        });
        self.console.finish();
        done.context("standard output")?;
        self.summarize(tally, started);
        Ok(())
    }

    fn summarize(&self, tally: &Tally, started: Instant) {
        let Tally { done, skipped, failed } = tally;
        let seconds = started.elapsed().as_secs_f64();
        let mut text = format!("{done} photos in {seconds:.1} s ({:.1} a second)", *done as f64 / seconds);
        for (count, what) in [(*skipped, "done before"), (*failed, "failed")] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        if let Some(out) = &self.args.out {
            text += &format!(" -> {}", out.display());
        }
        self.console.note(&text);
    }

    /// Scenes in order, `--batch` photos at a time through the network.
    fn segmented<'a>(
        &'a self,
        mut decoded: impl Iterator<Item = (Job, rtformer::Result<Image>)> + Send + 'a,
    ) -> impl Iterator<Item = (Job, rtformer::Result<(Image, Scene)>)> + Send + 'a {
        let mut ready = VecDeque::new();
        std::iter::from_fn(move || {
            if ready.is_empty() {
                let size = batch::size(self.args.batch, &self.segmenter);
                let batch: Vec<_> = decoded.by_ref().take(usize::from(size)).collect();
                ready.extend(self.segment_batch(batch));
            }
            ready.pop_front()
        })
    }

    fn segment_batch(
        &self,
        batch: Vec<(Job, rtformer::Result<Image>)>,
    ) -> impl Iterator<Item = (Job, rtformer::Result<(Image, Scene)>)> {
        let scenes = self.segmenter.segment_each(batch.iter().filter_map(|(_, image)| image.as_ref().ok()));
        let mut scenes = scenes.into_iter();
        batch.into_iter().map(move |(job, image)| {
            let seen = image.and_then(|image| {
                let missing = || Error::Backend { operation: "segment_batch", reason: "a photo has no scene".into() };
                let scene = scenes.next().unwrap_or_else(|| Err(missing()));
                Ok((image, scene?))
            });
            (job, seen)
        })
    }

    /// Writes what was asked for; the photo's JSON line.
    fn encode(&self, job: Job, seen: rtformer::Result<(Image, Scene)>) -> (PathBuf, rtformer::Result<String>) {
        let written = seen.and_then(|(image, scene)| self.write(&job, &image, &scene));
        (job.path, written)
    }

    fn write(&self, job: &Job, image: &Image, scene: &Scene) -> rtformer::Result<String> {
        let started = Instant::now();
        let labels: Vec<u16> = self.segmenter.dataset().classes.iter().filter_map(|class| class.label_id).collect();
        let mut written = Vec::with_capacity(self.emits.len());
        for &emit in &self.emits {
            let path = emit.path(&job.stem);
            outputs::write(emit, &path, image, scene, &labels, self.args.alpha)?;
            let name = emit.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
            written.push((name, path));
        }
        if !self.args.json && !self.emits.contains(&Emit::Json) {
            return Ok(String::new());
        }
        let line = report::scene(&job.path, scene, started.elapsed().as_secs_f64() * 1e3, &written);
        if self.emits.contains(&Emit::Json) {
            let path = Emit::Json.path(&job.stem);
            rtformer::files::write_whole(&path, |file| writeln!(file, "{line}"))?;
        }
        Ok(line)
    }
}

/// Reads and decodes a file, or standard input.
fn read(path: &Path, decoder: Decoder) -> rtformer::Result<Image> {
    if path != Path::new("-") {
        return decoder.open(path);
    }
    let bytes = read_within(stdin().lock(), decoder.limits.max_alloc).map_err(Error::reading(path))?;
    decoder.decode(&bytes, path)
}

/// Whether the run is to end early.
#[derive(Clone, Debug, Default)]
struct Stop {
    asked: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl Stop {
    fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// On Ctrl-C (or a request to terminate) photos in work are finished and no more begun; a second one ends the program at once.
fn stop_on_interrupt() -> anyhow::Result<Stop> {
    let stop = Stop::default();
    let handler = stop.clone();
    ctrlc::set_handler(move || {
        if handler.interrupted.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        handler.ask();
        eprintln!("stopping after the photos in work; again to stop at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
