/*
 * One lease: claiming, releasing, revoking, and messages that come late.
 *
 * Safety: no two nodes trust at one instant that they hold it. Liveness: once no more faults come, somebody holds it for
 * good. What is left out: the database forgetting (a failover), and fences.
 */
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SLIPS
#define SLIPS 2
#endif
#ifndef REVOKES
#define REVOKES 1
#endif
#define ALL ((1 << N) - 1)

hidden byte w;
hidden byte k;

/* The row. */
#define NONE N
byte holder = NONE;
byte target = 0;
byte blocked = NONE;
byte revokes = REVOKES;

/* What each process does: its handle, its one request under way, and what the last answer to one said. */
#define NO 0
#define HELD 1
#define ENDED 2
byte has[N];
#define QUIET 0
#define VIEW 1
#define CLAIM 2
#define RELEASE 3
#define ACKNOWLEDGE 4
#define ANSWERED 5
byte op[N];
byte late[N];
#define MY_TERM 1
#define MY_BLOCK 2
#define MY_TARGET 4
byte answer[N];
/* News that came after that answer was made. */
byte newer = 0;
byte in = ALL;
byte mustRead = ALL;
byte tried = 0;
/* A release that was sent is about the present term. */
byte releaseFits = 0;
/* For how long node w has seen the block: 0 when it has not, and one more than the ticks since it did. */
byte blockSeen[N];

#define joined(n) (in & BIT(n))
#define acts(n) (has[n] == HELD && trust[n] > 0)

#define LOST(n) lost(n)
#define BURY(n) bury(n)

#include "session.pml"

#define ANSWERED_BIT(n) ((op[n] == ANSWERED) << (n))
#if N > 2
#define answeredAll (ANSWERED_BIT(0) | ANSWERED_BIT(1) | ANSWERED_BIT(2))
#else
#define answeredAll (ANSWERED_BIT(0) | ANSWERED_BIT(1))
#endif

inline announce(who) { news = news | (who); newer = newer | ((who) & answeredAll) }

inline newBlock(n) {
  blocked = n;
  w = 0;
  do
  :: w < N -> blockSeen[w] = 0; w++
  :: else -> break
  od;
  w = 0
}

/* The next node after n that lives, or n itself, or nobody. */
inline planAfter(n) {
  target = NONE;
  k = 1;
  do
  :: k <= N ->
     if
     :: lives((n + k) % N) && target == NONE -> target = (n + k) % N
     :: else
     fi;
     k++
  :: else -> break
  od;
  k = 0;
#ifndef MUTANT_NO_NEWS
  if :: target != NONE -> announce(BIT(target)) :: else fi
#endif
}

inline bury(n) {
  alive = alive & ~BIT(n);
  news = news & ~BIT(n);
  forgetBeats(n);
  if :: blocked == n -> newBlock(NONE) :: else fi;
  if :: holder == n -> holder = NONE :: else fi;
#ifndef MUTANT_FORGET_PLAN
  if :: target == n -> planAfter(n) :: else fi
#endif
}

inline lost(n) {
  has[n] = NO;
  trust[n] = 0;
  credit[n] = 0;
  asked[n] = 0;
  op[n] = QUIET;
  late[n] = QUIET;
  answer[n] = 0;
  newer = newer & ~BIT(n);
  releaseFits = releaseFits & ~BIT(n);
  blockSeen[n] = 0;
  tried = tried & ~BIT(n);
  mustRead = mustRead & ~BIT(n);
  in = in & ~BIT(n)
}

inline join(n) {
  freshSession(n);
  in = in | BIT(n);
  mustRead = mustRead | BIT(n);
  tried = tried & ~BIT(n);
  late[n] = QUIET;
  op[n] = QUIET;
  if :: target == NONE -> target = n :: else fi
}

#ifdef MUTANT_CLAIM_BLOCKED
#define passable(n) true
#else
#ifdef MUTANT_WAIT_SHORT
#define passable(n) (blocked == NONE || blockSeen[n] > 0)
#else
#define passable(n) (blocked == NONE || blockSeen[n] > TTL)
#endif
#endif

#ifdef MUTANT_RELEASE_BLIND
#define fits(n) true
#else
#define fits(n) (releaseFits & BIT(n))
#endif

/* What a change of n does to the row. */
inline carryOut(n, what) {
  if
  :: what == CLAIM && target == n && holder == NONE && passable(n) ->
     holder = n;
     releaseFits = 0;
     if :: blocked != NONE -> newBlock(NONE) :: else fi;
     announce(BIT(n))
  :: what == RELEASE && holder == n && fits(n) -> holder = NONE; planAfter(n); announce(BIT(n))
  :: what == ACKNOWLEDGE && blocked == n ->
     newBlock(NONE);
     if :: target != NONE -> announce(BIT(target)) :: else fi
  :: else
  fi
}

inline look(n) {
  answer[n] = (holder == n -> MY_TERM : 0) | (blocked == n -> MY_BLOCK : 0) | (target == n -> MY_TARGET : 0);
  newer = newer & ~BIT(n)
}

/* Handles follow the answer before anything it renews counts. */
inline follow(n) {
  if
  :: !(answer[n] & MY_TERM) -> has[n] = NO
  :: (answer[n] & MY_TERM) && has[n] == NO -> has[n] = HELD
  :: else
  fi;
  if :: !(newer & BIT(n)) -> news = news & ~BIT(n) :: else fi;
  newer = newer & ~BIT(n);
  if :: late[n] != RELEASE -> releaseFits = releaseFits & ~BIT(n) :: else fi;
  mustRead = mustRead & ~BIT(n);
  caughtUp(n);
  op[n] = QUIET
}

#define mayAsk(n) (runs(n) && joined(n) && op[n] == QUIET && !(mustRead & BIT(n)) && !(tried & BIT(n)))

inline giveUp(n) {
  asked[n] = 0;
  op[n] = QUIET;
  answer[n] = 0;
  newer = newer & ~BIT(n);
  mustRead = mustRead | BIT(n)
}

/* A change is refused when its session is gone; what an earlier one still had under way is refused from then on. */
#ifdef MUTANT_RELEASE_BLIND
#define SUPERSEDE(n) skip
#else
#define SUPERSEDE(n) late[n] = QUIET
#endif

inline ask(n, what) {
  asked[n] = credit[n];
  if
  :: !lives(n) -> lost(n)
  :: lives(n) && what == VIEW -> look(n); op[n] = ANSWERED
  :: lives(n) && what != VIEW ->
     SUPERSEDE(n);
     tried = tried | BIT(n);
     carryOut(n, what);
     look(n);
     op[n] = ANSWERED
  fi
}

proctype Node(byte me) {
  do
  HEARTBEATS(me)
  :: d_step { blocked != NONE && joined(me) && blockSeen[me] == 0 -> blockSeen[me] = 1 }
  /* Reads. Hints may wake it; after the faults nothing but heartbeats does. */
  :: d_step { runs(me) && joined(me) && op[me] == QUIET &&
              ((mustRead & BIT(me)) || credit[me] > 0 || (hasNews(me) && !calm)) -> ask(me, VIEW) }
  /* Changes. */
  :: d_step { mayAsk(me) && has[me] == ENDED && (answer[me] & MY_TERM) ->
              releaseFits = releaseFits | BIT(me); ask(me, RELEASE) }
  :: d_step { mayAsk(me) && has[me] == NO && (answer[me] & MY_BLOCK) -> ask(me, ACKNOWLEDGE) }
  :: d_step { mayAsk(me) && has[me] == NO && trust[me] > 0 && (answer[me] & MY_TARGET) -> ask(me, CLAIM) }
#ifdef MUTANT_ACKNOWLEDGE_EARLY
  /* It says that it has stopped, and stops when it gets round to it. */
  :: d_step { runs(me) && op[me] == ANSWERED && (answer[me] & MY_BLOCK) && has[me] == HELD ->
              newBlock(NONE); follow(me); has[me] = HELD }
#endif
  :: d_step { runs(me) && op[me] == ANSWERED -> follow(me) }
  /* An answer is lost; or a request is given up on before it has landed, which it does later, or never. */
  :: d_step { !calm && slips > 0 && runs(me) && op[me] == ANSWERED -> slips--; giveUp(me) }
  :: d_step { !calm && slips > 0 && mayAsk(me) && has[me] == ENDED && (answer[me] & MY_TERM) ->
              slips--; releaseFits = releaseFits | BIT(me); late[me] = RELEASE; giveUp(me) }
  :: d_step { !calm && slips > 0 && mayAsk(me) && has[me] == NO && (answer[me] & MY_BLOCK) ->
              slips--; late[me] = ACKNOWLEDGE; giveUp(me) }
  :: d_step { !calm && slips > 0 && mayAsk(me) && has[me] == NO && trust[me] > 0 && (answer[me] & MY_TARGET) ->
              slips--; late[me] = CLAIM; giveUp(me) }
  :: d_step { late[me] != QUIET ->
              if :: lives(me) -> carryOut(me, late[me]) :: else fi; late[me] = QUIET }
  /* It ends its own term. */
  :: d_step { !calm && slips > 0 && runs(me) && has[me] == HELD -> slips--; has[me] = ENDED }
  /* Operators, crashes, new starts. */
  :: d_step { !calm && revokes > 0 && holder == me ->
              revokes--; newBlock(me); holder = NONE; planAfter(me); announce(BIT(me)) }
  :: d_step { !calm && crashes > 0 && runs(me) ->
              crashes--; up = up & ~BIT(me); w = late[me]; lost(me); late[me] = w; w = 0;
              forgetSeen(me); noBeat(me) }
  :: d_step { !runs(me) && !lives(me) -> up = up | BIT(me) }
  :: d_step { runs(me) && !joined(me) && !lives(me) -> join(me) }
  /* The others. */
  WATCHES(me, 0)
  WATCHES(me, 1)
#if N > 2
  WATCHES(me, 2)
#endif
  od
}

/* What has lapsed never comes back. */
inline lapse(n) { if :: trust[n] == 0 && has[n] == HELD -> has[n] = ENDED :: else fi }

inline passTime() {
  k = 0;
  do
  :: k < N ->
     age(k);
     lapse(k);
     if :: blockSeen[k] > 0 && blockSeen[k] <= TTL -> blockSeen[k]++ :: else fi;
     k++
  :: else -> break
  od;
  k = 0;
  beatDone = 0;
  tried = 0;
  ageWatched()
}

/* After the faults time passes only when there is nothing else to do: everybody is prompt. */
proctype Clock() {
  do
  :: d_step { !calm -> passTime() }
  :: atomic { calm && timeout -> passTime() }
#ifdef LIVENESS
  :: d_step { !calm -> calm = true }
#endif
  od
}

#define working (acts(0) + acts(1) + MORE)
#if N > 2
#define MORE acts(2)
#else
#define MORE 0
#endif

proctype Monitor() { d_step { working > 1 -> assert(false) } }

init {
  atomic {
    news = ALL;
    run Node(0);
    run Node(1);
#if N > 2
    run Node(2);
#endif
    run Clock();
    run Monitor()
  }
}

#ifdef LIVENESS
ltl live { <> calm -> <> [] (working == 1) }
#endif
