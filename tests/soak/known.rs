//! What a client knows of its session: what was acknowledged must be there, what was not answered may
//! be, at any time; and nothing else.

use super::common::Answer;

/// What a request does, and nothing beside.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    Write(usize, String),
    Pop(usize),
    Count,
    Flash(String),
    Flashes,
    Look,
    /// The flash messages too.
    LookAtAll,
    Renew,
    Logout,
}

impl Does {
    /// Its script; each answer begins with whose session it is.
    pub(crate) fn script(&self) -> String {
        let step = match self {
            Self::Write(key, value) => format!("add.k{key}.{value}"),
            Self::Pop(key) => format!("pop.k{key}"),
            Self::Count => "count.n".into(),
            Self::Flash(text) => format!("flash.{text}"),
            Self::Flashes => "flashes".into(),
            Self::Look => "get.n,get.k0,get.k1,get.k2,get.k3".into(),
            Self::LookAtAll => "get.n,get.k0,get.k1,get.k2,get.k3,flashes".into(),
            Self::Renew => "renew".into(),
            Self::Logout => "destroy".into(),
        };
        format!("get.mark,{step}")
    }

    fn ends(&self) -> bool {
        matches!(self, Self::Renew | Self::Logout)
    }
}

const NONE: &str = "none";

/// What a request found under its cookie.
#[derive(Clone, Copy, PartialEq)]
enum Found {
    Session,
    Nothing,
    Unknown,
}

/// A key's value as it was acknowledged last, and those in doubt. A write that was given up may still be
/// on its way, so that these stay in doubt.
#[derive(Debug)]
struct Slot {
    is: String,
    may_be: Vec<String>,
}

impl Slot {
    fn allows(&self, value: &str) -> bool {
        self.is == value || self.may_be.iter().any(|other| other == value)
    }
}

#[derive(Debug)]
pub(crate) struct Known {
    mark: String,
    pub(crate) cookie: String,
    keys: [Slot; Known::KEYS],
    /// How often it was counted, and how often more it may have been.
    counted: u64,
    may_count: u64,
    /// Messages that must be shown, that may be, and that were.
    flashes: Vec<String>,
    may_flash: Vec<String>,
    flashed: Vec<String>,
    /// Whether it was renewed or ended perhaps, and nobody was told.
    pub(crate) may_be_gone: bool,
    pub(crate) is_over: bool,
    /// Whether it is over, and is still kept perhaps.
    pub(crate) is_lost: bool,
    /// Cookies of its that open nothing from now on.
    pub(crate) dead: Vec<String>,
    /// The last steps, to explain a failure.
    history: Vec<String>,
}

impl Known {
    pub(crate) const KEYS: usize = 4;

    pub(crate) fn new(mark: String, cookie: String, first: String) -> Self {
        let mut keys = [(); Self::KEYS].map(|()| Slot {
            is: NONE.into(),
            may_be: Vec::new(),
        });
        keys[0].is = first;
        Self {
            mark,
            cookie,
            keys,
            counted: 0,
            may_count: 0,
            flashes: Vec::new(),
            may_flash: Vec::new(),
            flashed: Vec::new(),
            may_be_gone: false,
            is_over: false,
            is_lost: false,
            dead: Vec::new(),
            history: Vec::new(),
        }
    }

    #[track_caller]
    fn fail(&self, why: &str, answer: Option<&Answer>) -> ! {
        panic!("{}: {why}: {answer:?}\n{self:#?}", self.mark);
    }

    /// Learns of a request that was the only one of this session at its time. No answer is one that
    /// never came, or that the store was away.
    pub(crate) fn learn(&mut self, does: &Does, answer: Option<&Answer>) {
        let found = self.look(does, answer, true);
        self.take(does, answer, found, true);
    }

    /// Learns of two requests that were made at the same time, of which the second may end or renew
    /// the session; gives the cookie of a session that began by mistake.
    pub(crate) fn learn_both(
        &mut self,
        does: [&Does; 2],
        answers: [Option<&Answer>; 2],
    ) -> Option<String> {
        let ends = does[1].ends();
        if !ends {
            // Whichever was first, and twice if a reply was lost and the other came between.
            let counts = does.iter().filter(|does| matches!(does, Does::Count));
            self.may_count += counts.count() as u64;
        }
        let first = self.look(does[0], answers[0], !ends);
        let second = self.look(does[1], answers[1], !does[0].ends());
        let set = answers[0].filter(|answer| answer.set_cookie().is_some());
        let set = set.map(Answer::cookie);
        if !does[0].ends() {
            self.take(does[0], answers[0], first, !ends);
            self.take(does[1], answers[1], second, true);
            // On a cookie that was dead by then it began a session of its own.
            return set.filter(|_| first == Found::Nothing);
        }
        // Renewed while it is ended.
        match set {
            Some(new) => self.dead.push(std::mem::replace(&mut self.cookie, new)),
            None => self.may_be_gone = true,
        }
        match second {
            // A request that opened it before the renewal still ends it afterwards.
            Found::Session => {
                self.dead.push(self.cookie.clone());
                self.is_over = true;
            }
            Found::Nothing => {}
            Found::Unknown => self.may_be_gone = true,
        }
        None
    }

    /// What a request found, which must be what is known.
    fn look(&mut self, does: &Does, answer: Option<&Answer>, alone: bool) -> Found {
        let said = answer.map(|answer| &*answer.body);
        self.history.push(format!("{does:?}: {said:?}"));
        let Some(answer) = answer else {
            return Found::Unknown;
        };
        let (mark, rest) = answer.body.split_once(',').unwrap();
        if mark == NONE && (self.may_be_gone || !alone) {
            return Found::Nothing;
        }
        if mark != self.mark {
            self.fail("lost, or another client's", Some(answer));
        }
        let parts: Vec<_> = rest.split(',').collect();
        self.compare(does, &parts, answer);
        Found::Session
    }

    fn take(&mut self, does: &Does, answer: Option<&Answer>, found: Found, alone: bool) {
        match (found, answer) {
            // What opens nothing once never does again.
            (Found::Nothing, _) if alone => {
                self.dead.push(self.cookie.clone());
                (self.is_over, self.is_lost) = (true, true);
            }
            (Found::Nothing, _) => {}
            // A request that meets a renewal or an end is answered, and what it did may be dropped.
            (Found::Session, Some(answer)) if alone && !self.may_be_gone || does.ends() => {
                self.acknowledge(does, answer);
            }
            _ => self.doubt(does),
        }
    }

    /// What an answer shows must be what is known.
    fn compare(&self, does: &Does, parts: &[&str], answer: &Answer) {
        match does {
            Does::Pop(key) => self.check_key(*key, parts[0], answer),
            Does::Count => self.check_count(parts[0], 1, answer),
            Does::Look | Does::LookAtAll => {
                self.check_count(parts[0], 0, answer);
                for (key, value) in parts[1..=Self::KEYS].iter().enumerate() {
                    self.check_key(key, value, answer);
                }
            }
            _ => {}
        }
    }

    fn check_key(&self, key: usize, value: &str, answer: &Answer) {
        if !self.keys[key].allows(value) {
            self.fail(&format!("k{key} is {value}"), Some(answer));
        }
    }

    fn check_count(&self, count: &str, more: u64, answer: &Answer) {
        let count: u64 = count.replace(NONE, "0").parse().unwrap();
        let least = self.counted + more;
        if !(least..=least + self.may_count).contains(&count) {
            self.fail(&format!("counted {count} times"), Some(answer));
        }
    }

    fn acknowledge(&mut self, does: &Does, answer: &Answer) {
        let last = answer.body.rsplit(',').next().unwrap();
        match does {
            Does::Write(key, value) => self.keys[*key].is.clone_from(value),
            Does::Pop(key) => self.keys[*key].is = NONE.into(),
            Does::Count => self.counted += 1,
            Does::Flash(text) => self.flashes.push(text.clone()),
            Does::Flashes | Does::LookAtAll => self.shown(last, answer),
            Does::Look => {}
            Does::Renew => {
                if answer.set_cookie().is_none() {
                    self.fail("renewed, and no cookie", Some(answer));
                }
                let old = std::mem::replace(&mut self.cookie, answer.cookie());
                if old == self.cookie || self.cookie.ends_with('=') {
                    self.fail("renewed, and no new cookie", Some(answer));
                }
                self.dead.push(old);
            }
            Does::Logout => {
                if !answer.cookie().ends_with('=') {
                    self.fail("logged out, and a cookie", Some(answer));
                }
                self.dead.push(self.cookie.clone());
                self.is_over = true;
            }
        }
    }

    /// Each message that must be shown is, each that may be is at most once.
    fn shown(&mut self, texts: &str, answer: &Answer) {
        for text in texts.split('+').filter(|text| !text.is_empty()) {
            let is_known = |known: &mut Vec<String>| {
                let at = known.iter().position(|known| known == text);
                at.map(|at| known.swap_remove(at)).is_some()
            };
            if !is_known(&mut self.flashes) && !is_known(&mut self.may_flash) {
                self.fail(
                    &format!("message {text} is unknown or shown twice"),
                    Some(answer),
                );
            }
            self.flashed.push(text.to_owned());
        }
        if !self.flashes.is_empty() {
            self.fail("a message is lost", Some(answer));
        }
    }

    fn doubt(&mut self, does: &Does) {
        match does {
            Does::Write(key, value) => self.keys[*key].may_be.push(value.clone()),
            Does::Pop(key) => self.keys[*key].may_be.push(NONE.into()),
            Does::Count => self.may_count += 1,
            Does::Flash(text) => self.may_flash.push(text.clone()),
            Does::Flashes | Does::LookAtAll => self.may_flash.append(&mut self.flashes),
            Does::Look => {}
            Does::Renew | Does::Logout => self.may_be_gone = true,
        }
    }
}
