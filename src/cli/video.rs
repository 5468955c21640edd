//! `rtformer video`: segments videos and cameras.

mod args;
mod output;
mod report;
mod target;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rtformer::video::{FlipCounter, Frame, Keep, Scenes, Shown, Smoother, Source, Streaming, stop_children};

use super::console::{Console, counted};
use super::lines::Lines;
use super::model::opened;
use super::stop::Stop;
use super::{Outcome, misuse};
use output::{About, Output, Written};
use target::Target;

pub(super) use args::Args;

/// How often the program looks for a signal while it waits for a frame.
const LOOK: Duration = Duration::from_millis(20);

/// The number of frames whose ages are kept for the summary.
const AGES: usize = 10_000;

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    args.check()?;
    let stop = Stop::on_signals("frames", stop_children)?;
    let _children = Children;
    let segmenter = Arc::new(opened(args.model.builder()?.size(args.size).logits(args.smooth.is_some()).build())?);
    console.note(&segmenter.to_string());
    let Some(source) = open(args, &stop)? else { return Ok(Outcome::Interrupted) };
    if let Target::Folder(folder) = args.target() {
        std::fs::create_dir_all(folder).map_err(rtformer::Error::writing(folder))?;
    }
    let about = About {
        rate: source.rate(),
        time_base: source.time_base(),
        range: source.range(),
        matrix: source.matrix(),
        audio: source.audio().cloned(),
    };
    let keep = source.keep();
    let mut run = Run {
        console,
        output: Output::new(args, segmenter.palette(), about),
        smoother: args.smooth.map(Smoother::new).transpose()?,
        flips: FlipCounter::default(),
        lines: args.json.then(Lines::default),
        done: 0,
        dropped: 0,
        reused: 0,
        failed: 0,
        ages: VecDeque::new(),
    };
    let started = Instant::now();
    let reuse = args.reuse.then_some(Smoother::THRESHOLD);
    run.all(segmenter.stream(source, Streaming { keep, reuse }), &stop)?;
    let failed = run.failed;
    run.finish(args, keep, started)?;
    Ok(match failed {
        _ if stop.interrupted() => Outcome::Interrupted,
        0 => Outcome::Done,
        _ => Outcome::SomeFailed,
    })
}

/// Kills the children that still run when the command ends, for whatever reason.
struct Children;

impl Drop for Children {
    fn drop(&mut self) {
        stop_children();
    }
}

/// Opens the input on a thread of its own, because its first frame may never come. `None` after a signal.
fn open(args: &Args, stop: &Stop) -> anyhow::Result<Option<Source>> {
    let (input, options) = (args.input.clone(), args.options());
    let pictures = pictures(&input)?;
    let (sender, opened) = channel();
    thread::Builder::new().name("open".into()).spawn(move || {
        // Fails only after a signal, when nobody waits for it.
        let _ = sender.send(match pictures {
            Some(paths) => Source::pictures(paths, &options),
            None => Source::open(&input, &options),
        });
    })?;
    loop {
        match opened.recv_timeout(LOOK) {
            Ok(source) => {
                return match source {
                    Err(error @ rtformer::Error::Input(_)) => Err(misuse(error.to_string())),
                    source => Ok(Some(source?)),
                };
            }
            Err(_) if stop.asked() => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("{}: cannot be opened", args.input.display()),
        }
    }
}

/// The files that a glob names. `None` if the input is no glob, or the name of a file.
fn pictures(input: &Path) -> anyhow::Result<Option<Vec<PathBuf>>> {
    let Some(pattern) = input.to_str().filter(|text| text.contains(['*', '?', '[']) && !text.contains("://")) else {
        return Ok(None);
    };
    if input.exists() {
        return Ok(None);
    }
    let paths: Vec<_> = glob::glob(pattern)
        .map_err(|error| misuse(format!("invalid glob `{pattern}`: {error}")))?
        .filter_map(Result::ok)
        .filter(|path| path.is_file())
        .collect();
    if paths.is_empty() {
        anyhow::bail!("{pattern}: matches no files; expected numbered pictures");
    }
    Ok(Some(paths))
}

/// A run, and what it counts.
struct Run<'a> {
    console: &'a Console,
    output: Output<'a>,
    smoother: Option<Smoother>,
    flips: FlipCounter,
    lines: Option<Lines>,
    done: u64,
    dropped: u64,
    reused: u64,
    failed: u64,
    /// Milliseconds from the arrival of the last frames until their masks were written.
    ages: VecDeque<f64>,
}

impl Run<'_> {
    /// Writes the scenes as they come.
    fn all(&mut self, mut scenes: Scenes<Frame>, stop: &Stop) -> anyhow::Result<()> {
        let bar = self.console.count("frames");
        while !stop.asked() {
            let shown = match scenes.next_within(LOOK) {
                Err(_) => continue,
                Ok(None) => break,
                Ok(Some(shown)) => shown,
            };
            match shown {
                Ok(shown) => {
                    if !self.frame(shown)? {
                        break;
                    }
                    bar.inc(1);
                }
                Err(error) => {
                    self.failed += 1;
                    let reason = format!("{:#}", anyhow::Error::from(error));
                    self.console.error(&reason);
                    if let Some(lines) = &mut self.lines {
                        lines.print(&report::failure(&reason));
                    }
                }
            }
        }
        self.console.finish();
        Ok(())
    }

    /// Writes a scene. Returns `false` if no more are wanted.
    fn frame(&mut self, mut shown: Shown<Frame>) -> rtformer::Result<bool> {
        if let Some(smoother) = &mut self.smoother {
            smoother.apply(&shown.frame.image, &mut shown.scene)?;
        }
        let written = match self.output.write(&shown.frame, &shown.scene)? {
            Written::Closed => return Ok(false),
            Written::To(path) => path,
        };
        if self.ages.len() == AGES {
            self.ages.pop_front();
        }
        self.ages.push_back(report::age(shown.arrived));
        self.done += 1;
        self.dropped += shown.dropped;
        self.reused += u64::from(shown.reused);
        let flip_rate = self.flips.count(&shown.frame.image, shown.scene.mask());
        let Some(lines) = &mut self.lines else { return Ok(true) };
        lines.print(&report::line(&shown, flip_rate, self.dropped, written.as_deref(), self.ages.back().copied()));
        // Without an output, the lines are all that is wanted.
        Ok(!(lines.is_closed() && self.output.is_none()))
    }

    /// Completes the output and prints the summary.
    fn finish(self, args: &Args, keep: Keep, started: Instant) -> anyhow::Result<()> {
        let Self { console, output, flips, lines, done, dropped, reused, failed, ages, .. } = self;
        output.finish()?;
        let seconds = started.elapsed().as_secs_f64();
        let frames = counted(usize::try_from(done).unwrap_or(usize::MAX), "frame");
        let mut text = format!("{frames} in {seconds:.1} s ({:.1} per second)", done as f64 / seconds);
        if keep == Keep::Newest {
            let mut ages: Vec<_> = ages.into();
            ages.sort_by(f64::total_cmp);
            let p95 = ages.get(ages.len().saturating_sub(1) * 95 / 100).copied().unwrap_or(0.0);
            text += &format!(", {dropped} dropped, age of masks {p95:.0} ms (p95)");
        }
        if args.reuse {
            text += &format!(", {:.1} % reused", 100.0 * reused as f64 / done.max(1) as f64);
        }
        if let Some(rate) = flips.rate() {
            text += &format!(", flip rate {:.3} %", 100.0 * rate);
        }
        if failed > 0 {
            text += &format!(", {failed} failed");
        }
        if let Some(out) = args.out.as_deref().filter(|out| *out != Path::new("-")) {
            text += &format!(" -> {}", out.display());
        }
        console.note(&text);
        lines.map_or(Ok(()), Lines::finish)
    }
}
