/*
 * Sessions, as both models have them: heartbeats, trust, watching, burying.
 *
 * Time goes in ticks. A tick is the only thing that makes time pass, and it passes for everybody alike: rates
 * of clocks are what the margin is for, and that is arithmetic (test/core/timing.test.ts). Between two ticks anything may
 * happen in any order, or not at all: a process that stands still is one that takes no step.
 *
 * A request lands in the step in which it is sent, and its answer comes as late as it likes. Landing later would be
 * no worse: the window counts from the sending, and what is asked later is told more. What its sender has given up
 * on lands at any time after that.
 * Numbers that only grow (beats, tokens, operations) would make the states endless. What matters of them is kept
 * instead: whether this watcher has seen that beat, whether that release is about the present term.
 *
 * A process that crashed comes back when its old session has been buried, so that N sessions are enough.
 */
#ifndef N
#define N 2
#endif

/* Trust lasts TRUST ticks from when a heartbeat was sent. Who has seen a beat stand still for TTL ticks buries. */
#define TRUST 2
#ifdef MUTANT_BURY_EARLY
#define TTL 1
#else
#define TTL 2
#endif

#define BIT(n) (1 << (n))

/* What the database has. A bit for each node: its session lives; it has news that it has not read. */
byte alive = ALL;
byte news = 0;

/* What the processes have. */
byte up = ALL;
byte trust[N];

/* The heartbeat of each node: where it is, how long ago it was sent, and whether one was sent in this tick. */
#define IDLE 0
#define GOOD 1
#define WITH_NEWS 2
byte beat[N];
byte beatAge[N];
byte beatDone = 0;
/* A heartbeat that was given up on, and is still on its way. */
byte oldBeat = 0;
/* A heartbeat that was answered, and waits for the news to be read: its age + 1. What was asked after it makes it count. */
byte credit[N];
byte asked[N];

/* What watcher w has seen of n: for how long its beat has stood still; and a newer one not seen yet. */
byte still[N * N];
bool fresh[N * N];
#define AT(w, n) ((w) * N + (n))

/* Faults that are left, and whether there will be no more. */
byte crashes = CRASHES;
byte slips = SLIPS;
bool calm = false;

#define lives(n) (alive & BIT(n))
#define runs(n) (up & BIT(n))
#define hasNews(n) (news & BIT(n))

inline stampBeat(n) {
  w = 0;
  do
  :: w < N -> if :: w != n && runs(w) -> fresh[AT(w, n)] = true :: else fi; w++
  :: else -> break
  od;
  w = 0
}

inline renew(n, age) {
#ifdef MUTANT_TRUST_FROM_ANSWER
  trust[n] = TRUST
#else
  if
  :: (age) < TRUST && trust[n] < TRUST - (age) -> trust[n] = TRUST - (age)
  :: else
  fi
#endif
}

inline noBeat(n) { beat[n] = IDLE; beatAge[n] = 0 }

/* Heartbeats of node n: each line is one step. */
#define HEARTBEATS(n) \
  :: d_step { runs(n) && joined(n) && beat[n] == IDLE && !(beatDone & BIT(n)) && lives(n) -> \
       beatDone = beatDone | BIT(n); \
       stampBeat(n); \
       if :: hasNews(n) -> beat[n] = WITH_NEWS :: else -> beat[n] = GOOD fi } \
  :: d_step { runs(n) && joined(n) && beat[n] == IDLE && !lives(n) -> LOST(n) } \
  :: d_step { runs(n) && beat[n] == GOOD -> renew(n, beatAge[n]); noBeat(n) } \
  :: d_step { runs(n) && beat[n] == WITH_NEWS -> \
       GOT_NEWS(n); credit[n] = beatAge[n] + 1; noBeat(n) } \
  :: d_step { !calm && slips > 0 && runs(n) && joined(n) && !(oldBeat & BIT(n)) -> slips--; oldBeat = oldBeat | BIT(n) } \
  :: d_step { !calm && slips > 0 && beat[n] != IDLE -> slips--; noBeat(n) } \
  :: d_step { oldBeat & BIT(n) -> oldBeat = oldBeat & ~BIT(n); if :: lives(n) -> stampBeat(n) :: else fi }

#ifdef MUTANT_RENEW_UNREAD
#define GOT_NEWS(n) renew(n, beatAge[n])
#else
#define GOT_NEWS(n) skip
#endif

/* The news has been read: heartbeats that were answered before it was asked for count now. */
inline caughtUp(n) {
  if
  :: asked[n] > 0 ->
     renew(n, asked[n] - 1);
     if :: credit[n] == asked[n] -> credit[n] = 0 :: else fi;
     asked[n] = 0
  :: else
  fi
}

#ifdef MUTANT_BURY_UNCHECKED
#define SAME_BEAT(w, n) true
#else
#define SAME_BEAT(w, n) !fresh[AT(w, n)]
#endif

/* Node w looks at n, and buries it: the row is read again in the change that does so. */
#define WATCHES(w, n) \
  :: d_step { runs(w) && lives(w) && w != n && fresh[AT(w, n)] && !due(w, n) -> \
       fresh[AT(w, n)] = false; still[AT(w, n)] = 0 } \
  :: d_step { due(w, n) && SAME_BEAT(w, n) -> BURY(n) } \
  :: d_step { due(w, n) && !(SAME_BEAT(w, n)) -> fresh[AT(w, n)] = false; still[AT(w, n)] = 0 }

#define due(w, n) (runs(w) && lives(w) && w != n && lives(n) && still[AT(w, n)] >= TTL)

inline age(n) {
  if :: trust[n] > 0 -> trust[n]-- :: else fi;
  if :: beat[n] != IDLE && beatAge[n] < TRUST -> beatAge[n]++ :: else fi;
  if :: credit[n] > 0 && credit[n] <= TRUST -> credit[n]++ :: else fi;
  if :: asked[n] > 0 && asked[n] <= TRUST -> asked[n]++ :: else fi
}

inline ageWatched() {
  w = 0;
  do
  :: w < N * N ->
     if
     :: still[w] < TTL && w / N != w % N && runs(w / N) && lives(w % N) -> still[w]++
     :: else
     fi;
     w++
  :: else -> break
  od;
  w = 0
}

/* What is of no consequence any more is set to one value, so that states that do not differ are not told apart. */
inline forgetBeats(n) {
  w = 0;
  do
  :: w < N -> still[AT(w, n)] = 0; fresh[AT(w, n)] = false; w++
  :: else -> break
  od;
  w = 0
}

inline forgetSeen(n) {
  w = 0;
  do
  :: w < N -> still[AT(n, w)] = 0; fresh[AT(n, w)] = false; w++
  :: else -> break
  od;
  w = 0
}

/* Everything of n is as at the start, but under a new session. */
inline freshSession(n) {
  alive = alive | BIT(n);
  trust[n] = 0;
  noBeat(n);
  credit[n] = 0;
  asked[n] = 0;
  oldBeat = oldBeat & ~BIT(n);
  news = news | BIT(n);
  stampBeat(n);
  beatDone = beatDone & ~BIT(n)
}
