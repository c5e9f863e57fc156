/*
 * Sessions: heartbeats, trust, watching, burying.
 *
 * Time goes in ticks. A tick is the only thing that makes time pass, and it passes for everybody alike: rates
 * of clocks are what the margin is for, and that is arithmetic (test/core/timing.test.ts). Between two ticks anything may
 * happen in any order, or not at all: a process that stands still is one that takes no step.
 *
 * A request lands in the step in which it is sent, and its answer comes as late as it likes. Landing later would be
 * no worse: the window counts from the sending, and what is asked later is told more. What its sender has given up
 * on lands at any time after that.
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
#define ALL ((1 << N) - 1)

/* For loops and choices within a step; 0 between steps. */
byte w = 0;
byte k = 0;
byte chosen = 0;

/* What the database has. A bit for each node: its session lives; it has news that it has not read. */
byte alive = ALL;
byte news = ALL;

/* What the processes have. A bit for each: it runs; it has joined, as far as it knows. */
byte up = ALL;
byte in = ALL;
byte trust[N];

/*
 * The heartbeat of each node that is under way, with late answers, and how long ago it was sent. One as old as trust lasts gives no trust
 * any more, and is done with at that moment: all that its answer could still do is to make room for the next one.
 */
#define IDLE 0
#define GOOD 1
#define WITH_NEWS 2
byte beat[N];
byte beatAge[N];
/*
 * A heartbeat that was answered, and waits for the news to be read: its age + 1, or 0. What was asked after it makes it
 * count. One that would give no trust any more is forgotten.
 */
byte credit[N];
byte asked[N];

/* For how long watcher w has seen the beat of n stand still. */
byte still[N * N];
#define AT(w, n) ((w) * N + (n))

/* Faults that are left, and whether there will be no more. */
byte crashes = CRASHES;
byte slips = SLIPS;
byte orders = ORDERS;
bool calm = false;

/*
 * With LATE_ANSWERS answers come as late as they like, and are lost. Without, they come in the step of their request. Nothing is
 * lost by that. Trust ends a while after the sending in any case, so a late answer gives the same or less; work that it lets
 * begin may have begun before; and what comes to an end because it is late may end at any time as well, since work ends by
 * itself. A change whose answer is lost is one that was given up on and lands next. After the faults all answers come at once, and what
 * was under way by then may as well have been answered before the last tick. The searches with late answers show the same for
 * two nodes without this argument.
 */
#ifdef LATE_ANSWERS
#define UNLESS_LATE(step) skip
#else
#define UNLESS_LATE(step) step
#endif

#ifdef LIVENESS
/*
 * Once the faults are over everybody is prompt, and time passes when there is nothing left to do. For there to be an end of
 * it, each node then sends one heartbeat and makes one change in a tick. Before, it may do so as often as it likes, so
 * that nothing need be remembered of it.
 */
byte beatDone = 0;
byte tried = 0;
#define mayBeat(n) (!(beatDone & BIT(n)))
#define mayTry(n) (!(tried & BIT(n)))
#define noteBeat(n) beatDone = beatDone | (calm << (n))
#define noteTry(n) tried = tried | (calm << (n))
#else
#define mayBeat(n) true
#define mayTry(n) true
#define noteBeat(n) skip
#define noteTry(n) skip
#endif

#define lives(n) (alive & BIT(n))
#define runs(n) (up & BIT(n))
#define joined(n) (in & BIT(n))
#define hasNews(n) (news & BIT(n))

/* Without the look at the beat, whoever has waited for long enough buries whatever comes. */
#ifdef MUTANT_BURY_UNCHECKED
#define restarts(w, n) (still[AT(w, n)] < TTL)
#else
#define restarts(w, n) true
#endif

/*
 * A watcher sees a beat at once. Seeing it later, it would bury later, which it may do in any case: nobody has to bury
 * the moment that it may. (For liveness, where it has to, see beCalm.) Heartbeats that land after they were given up on are left
 * out for the same reason: they stamp the row and give no trust, so that others bury later.
 *
 * Its request to bury names the beat that has stood still, and is refused when there is another by then. So it
 * makes no difference whether it is under way already: a beat that comes first begins the wait anew.
 */
inline stampBeat(n) {
  w = 0;
  do
  :: w < N -> if :: restarts(w, n) -> still[AT(w, n)] = 0 :: else fi; w++
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

#ifdef MUTANT_RENEW_UNREAD
#define GOT_NEWS(n) renew(n, beatAge[n])
#else
#define GOT_NEWS(n) skip
#endif

/* Heartbeats of node n: each line is one step. */
#define HEARTBEATS(n) \
  :: d_step { runs(n) && joined(n) && beat[n] == IDLE && mayBeat(n) && lives(n) -> \
       noteBeat(n); \
       stampBeat(n); \
       if :: hasNews(n) -> beat[n] = WITH_NEWS :: else -> beat[n] = GOOD fi; \
       UNLESS_LATE(takeBeat(n)); \
       end() } \
  :: d_step { runs(n) && joined(n) && beat[n] == IDLE && !lives(n) -> lost(n); end() } \
  LATE_BEAT(n)

#ifdef LATE_ANSWERS
#define LATE_BEAT(n) :: d_step { beat[n] != IDLE -> takeBeat(n); end() }
#else
#define LATE_BEAT(n)
#endif

inline takeBeat(n) {
  if
  :: beat[n] == GOOD -> renew(n, beatAge[n])
  :: beat[n] == WITH_NEWS -> GOT_NEWS(n); credit[n] = beatAge[n] + 1
  :: else
  fi;
  noBeat(n)
}

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

/* Node w may bury n. */
#define due(w, n) (runs(w) && lives(w) && joined(w) && w != n && lives(n) && still[AT(w, n)] >= TTL)

#define WATCHES(w, n) \
  :: atomic { due(w, n) -> chooseBut(n); d_step { bury(n); end() } }

/* A tick of n. */
inline age(n) {
  if :: trust[n] > 0 -> trust[n]-- :: else fi;
  if
  :: beat[n] != IDLE -> beatAge[n]++; if :: beatAge[n] >= TRUST -> noBeat(n) :: else fi
  :: else
  fi;
  if :: credit[n] > 0 -> credit[n]++; if :: credit[n] > TRUST -> credit[n] = 0 :: else fi :: else fi;
  if :: asked[n] > 0 -> asked[n]++; if :: asked[n] > TRUST -> asked[n] = 0 :: else fi :: else fi
}

#define watching(w, n) (w != n && runs(w) && lives(w) && joined(w) && lives(n))

inline ageWatched() {
  w = 0;
  do
  :: w < N * N ->
     if :: still[w] < TTL && watching(w / N, w % N) -> still[w]++ :: else fi;
     w++
  :: else -> break
  od;
  w = 0
}

/* What is of no consequence any more is set to one value, so that states that do not differ are not told apart. */
inline forgetWatching(n) {
  w = 0;
  do
  :: w < N -> still[AT(w, n)] = 0; still[AT(n, w)] = 0; w++
  :: else -> break
  od;
  w = 0
}
