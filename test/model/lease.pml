/*
 * One lease: claiming, releasing, revoking, handing over, and messages that come late.
 *
 * Safety: no two nodes trust at one instant that they hold it. Liveness: BOUND ticks after the faults one node works, and
 * one does at every instant from then on. That is more than that somebody ends up working for good: it says when. It is asked of
 * each state alone (see Monitor), so no search for cycles is needed.
 *
 * Left out: the database forgetting (a failover), fences, shares and partitions.
 *
 * Numbers that only grow (beats, tokens, operations) would make the states endless. What matters of them is kept
 * instead: for how long a beat has been the same, whether a release or an acknowledgement is still about what it names, whether a
 * later change has been made.
 *
 * A process that crashed comes back when its old session has been buried, or never; so N sessions are enough.
 *
 * What keeps the states few is argued where it stands. Most of it is of one kind: where a node may do something but need not, the model
 * need not let it find out late that it may. A state from which more can be done stands for one from which less can be done.
 */
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SLIPS
#define SLIPS 1
#endif
#ifndef ORDERS
#define ORDERS 1
#endif

#include "session.pml"

/* The row. NOBODY stands for a session that is gone, and whose name no new one bears. */
#define NONE N
#define NOBODY (N + 1)
byte holder = NONE;
byte target = 0;
byte blocked = NONE;
/*
 * For how long node n has seen the block, + 1; 0 when there is none, or it is its own. Like beats it is seen at once: seeing it later,
 * a node would pass it later, which it may do in any case.
 */
byte blockSeen[N];

/*
 * What each process does: whether it works, has ended and is to give the lease back, or neither; whether its one request has
 * been answered and the answer is still on its way; and a request that it has given up on and that has not landed.
 *
 * Trust and work go together: work begins with trust only, and ends when there is none. So who works is who trusts that it
 * holds the lease.
 */
#define NO 0
#define WORKS 1
#define ENDED 2
byte has[N];
byte answered = 0;
byte mustRead = ALL;
#define QUIET 0
#define VIEW 1
#define CLAIM 2
#define RELEASE 3
#define ACKNOWLEDGE 4
byte late[N];

/*
 * What the answer says; and once it has been followed, as much of it as matters: who has the lease needs to remember nothing, for
 * it works, or has ended and gives the lease back.
 */
#define MY_TERM 1
#define MY_BLOCK 2
#define MY_TARGET 4
byte answer[N];
/* News that came after that answer was made. */
byte newer = 0;

#ifdef LIVENESS
/* Not tight: five are enough, and four are not. */
#ifndef BOUND
#define BOUND 8
#endif
/* All that there is to do between two ticks takes fewer steps than these. */
#ifndef STEPS
#define STEPS (10 * N)
#endif
/* Ticks since the faults were over, up to BOUND; and steps since the last of them. */
byte since = 0;
byte steps = 0;
#define countStep() steps = steps + calm
#else
#define countStep() skip
#endif

inline announce(who) { news = news | ((who) & alive); newer = newer | ((who) & answered) }

/*
 * The plan names whom it likes: the real one goes by how much each node has, by hashes and by cool-downs, which are as good as any
 * choice. Chosen before the step that plans, since a choice within it would not be tried both ways.
 */
inline chooseBut(n) {
  if
  :: lives(0) && 0 != n -> chosen = 0
  :: lives(1) && 1 != n -> chosen = 1
#if N > 2
  :: lives(2) && 2 != n -> chosen = 2
#endif
  :: !(alive & ~BIT(n)) -> chosen = NONE
  fi
}

inline plan() {
  target = chosen;
#ifndef MUTANT_NO_NEWS
  if :: target != NONE -> announce(BIT(target)) :: else fi
#endif
}

/*
 * The block there was is over. An acknowledgement names the token of the block, and is refused from now on, whether it is under way
 * or still to be sent by a node that has not read that the block is over: so it may as well be forgotten.
 */
inline newBlock(n) {
#ifndef MUTANT_ACKNOWLEDGE_BLIND
  if
  :: blocked != NONE ->
     answer[blocked] = answer[blocked] & ~MY_BLOCK;
     if :: late[blocked] == ACKNOWLEDGE -> late[blocked] = QUIET :: else fi
  :: else
  fi;
#endif
  blocked = n;
  w = 0;
  do
  :: w < N -> blockSeen[w] = (n != NONE && w != n && lives(w) -> 1 : 0); w++
  :: else -> break
  od;
  w = 0
}

/*
 * The term is over. A release that is still on its way names its token, and will be refused: it may as well be gone.
 */
inline vacate() {
#ifndef MUTANT_RELEASE_BLIND
  if :: holder != NONE && late[holder] == RELEASE -> late[holder] = QUIET :: else fi;
#endif
  holder = NONE
}

/* A process that has no session, or knows that it has none any more. */
inline lost(n) {
  has[n] = NO;
  trust[n] = 0;
  noBeat(n);
  credit[n] = 0;
  asked[n] = 0;
  answered = answered & ~BIT(n);
  answer[n] = 0;
  newer = newer & ~BIT(n);
  mustRead = mustRead & ~BIT(n);
  in = in & ~BIT(n)
}

/*
 * A node that is buried, does not work, and has no answer under way by which it may begin, does nothing that counts, nor will it.
 * When it hears of it makes no difference.
 */
inline hearIfIdle(n) {
  if
  :: !lives(n) && joined(n) && has[n] != WORKS && !((answered & BIT(n)) && (answer[n] & MY_TERM)) -> lost(n)
  :: else
  fi
}

/*
 * Of a session that is gone nothing is made true any more: what is under way is refused, and whatever its node asks tells it
 * so. What it does until then goes on: it may work, and answers that were given before may let it begin.
 */
inline bury(n) {
  alive = alive & ~BIT(n);
  news = news & ~BIT(n);
  newer = newer & ~BIT(n);
  mustRead = mustRead & ~BIT(n);
  late[n] = QUIET;
  credit[n] = 0;
  forgetWatching(n);
  blockSeen[n] = 0;
  if :: beat[n] == WITH_NEWS -> noBeat(n) :: else fi;
  if :: blocked == n -> newBlock(NONE) :: else fi;
  if :: holder == n -> vacate() :: else fi;
  if
#ifdef MUTANT_FORGET_PLAN
  :: target == n -> target = NOBODY
#else
  :: target == n -> plan()
#endif
  :: else
  fi;
  hearIfIdle(n);
  if :: !calm -> up = up | BIT(n) :: else fi
}

inline join(n) {
  alive = alive | BIT(n);
  up = up | BIT(n);
  in = in | BIT(n);
  news = news | BIT(n);
  mustRead = mustRead | BIT(n);
  if :: blocked != NONE -> blockSeen[n] = 1 :: else fi;
  if :: target >= NONE -> target = n :: else fi
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

/* What a change of n does to the row. */
inline carryOut(n, what) {
  if
  :: what == CLAIM && target == n && holder == NONE && passable(n) ->
     holder = n;
     if :: blocked != NONE -> announce(BIT(blocked)); newBlock(NONE) :: else fi;
     announce(BIT(n))
  :: what == RELEASE && holder == n ->
     vacate();
     if :: target == n -> plan() :: else -> announce(BIT(target)) fi;
     announce(BIT(n))
  :: what == ACKNOWLEDGE && blocked == n ->
     newBlock(NONE);
     if :: target < NONE -> announce(BIT(target)) :: else fi;
     announce(BIT(n))
  :: else
  fi
}

inline look(n) {
  answer[n] = (holder == n -> MY_TERM : 0) | (blocked == n -> MY_BLOCK : 0) | (target == n -> MY_TARGET : 0);
  newer = newer & ~BIT(n)
}

/* What was asked to be given back is not begun after all. */
#ifdef MUTANT_BEGIN_RENOUNCED
#define mayBegin(n) true
#else
#define mayBegin(n) (has[n] == NO)
#endif

/*
 * Work that the answer does not cover ends before anything it renews counts; what it covers anew begins after that, if there
 * is trust, and is given back if there is none.
 */
inline follow(n) {
  if :: !(answer[n] & MY_TERM) -> has[n] = NO :: else fi;
  caughtUp(n);
  if
  :: (answer[n] & MY_TERM) && mayBegin(n) -> has[n] = (trust[n] > 0 -> WORKS : ENDED)
  :: else
  fi;
  if :: (answer[n] & MY_TERM) && !(answer[n] & MY_TARGET) -> has[n] = ENDED :: else fi;
  answer[n] = (has[n] == NO -> answer[n] : 0);
  if :: !(newer & BIT(n)) -> news = news & ~BIT(n) :: else fi;
  newer = newer & ~BIT(n);
  mustRead = mustRead & ~BIT(n);
  answered = answered & ~BIT(n);
  hearIfIdle(n)
}

#define asks(n) (runs(n) && joined(n) && !(answered & BIT(n)))
#define mayChange(n) (asks(n) && !(mustRead & BIT(n)) && mayTry(n))
#define wantsRelease(n) (mayChange(n) && has[n] == ENDED)
#define wantsAcknowledge(n) (mayChange(n) && has[n] == NO && (answer[n] & MY_BLOCK))
/*
 * One change does all that a node wishes, an acknowledgement first; here each is a change of its own. After the faults they come in
 * that order, or claims that are refused could put off the acknowledgement for ever.
 */
#define wantsClaim(n) \
  (mayChange(n) && has[n] == NO && trust[n] > 0 && (answer[n] & MY_TARGET) && !(calm && (answer[n] & MY_BLOCK)))

inline giveUp(n) {
  asked[n] = 0;
  answered = answered & ~BIT(n);
  answer[n] = 0;
  newer = newer & ~BIT(n);
  mustRead = mustRead | (lives(n) -> BIT(n) : 0)
}

/* A later change of the session makes that an earlier one is refused. */
#ifdef MUTANT_RELEASE_BLIND
#define supersede(n) skip
#else
#define supersede(n) late[n] = QUIET
#endif

inline ask(n, what) {
  if
  :: !lives(n) -> lost(n)
  :: else ->
     asked[n] = credit[n];
     if
     :: what != VIEW -> supersede(n); noteTry(n); carryOut(n, what)
     :: else
     fi;
     look(n);
     answered = answered | BIT(n);
     UNLESS_LATE(follow(n))
  fi
}

inline sendLate(n, what) {
  slips--;
  if :: lives(n) -> late[n] = what :: else fi;
  giveUp(n)
}

#ifdef MUTANT_RELEASE_BLIND
#define hasRoom(n) (late[n] == QUIET)
#else
#define hasRoom(n) true
#endif

/*
 * Nodes are alike: nothing in the model goes by their numbers. So of states that differ in who is who one is enough. With each step
 * nodes are put in an order by what they are about; those that are equal in this keep theirs, which costs states and no truth.
 */
#define KEY(n) \
  ((((((((holder == n) * 2 + (target == n)) * 2 + (blocked == n)) * 3 + has[n]) * 3 + trust[n]) * 3 + credit[n]) * 8 + answer[n]) * 5 + late[n]) * 64 + \
  (lives(n) > 0) * 32 + (runs(n) > 0) * 16 + (joined(n) > 0) * 8 + (hasNews(n) > 0) * 4 + ((answered & BIT(n)) > 0) * 2 + ((mustRead & BIT(n)) > 0)

#define SWAP(a, b) k = a; a = b; b = k
#define SWAP_BITS(set, m, n) \
  set = (set & ~(BIT(m) | BIT(n))) | (((set >> (m)) & 1) << (n)) | (((set >> (n)) & 1) << (m))
#define RENAME(who, m, n) who = (who == m -> n : (who == n -> m : who))

inline swap(m, n) {
  SWAP(has[m], has[n]);
  SWAP(trust[m], trust[n]);
  SWAP(beat[m], beat[n]);
  SWAP(beatAge[m], beatAge[n]);
  SWAP(credit[m], credit[n]);
  SWAP(asked[m], asked[n]);
  SWAP(answer[m], answer[n]);
  SWAP(late[m], late[n]);
  SWAP(blockSeen[m], blockSeen[n]);
  SWAP_BITS(alive, m, n);
  SWAP_BITS(news, m, n);
  SWAP_BITS(newer, m, n);
  SWAP_BITS(up, m, n);
  SWAP_BITS(in, m, n);
  SWAP_BITS(answered, m, n);
  SWAP_BITS(mustRead, m, n);
#ifdef LIVENESS
  SWAP_BITS(beatDone, m, n);
  SWAP_BITS(tried, m, n);
#endif
  RENAME(holder, m, n);
  RENAME(target, m, n);
  RENAME(blocked, m, n);
  SWAP(still[AT(m, n)], still[AT(n, m)]);
#if N > 2
  SWAP(still[AT(m, 3 - m - n)], still[AT(n, 3 - m - n)]);
  SWAP(still[AT(3 - m - n, m)], still[AT(3 - m - n, n)]);
#endif
  k = 0
}

inline putInOrder(m, n) { if :: KEY(m) < KEY(n) -> swap(m, n) :: else fi }

inline putAllInOrder() {
  putInOrder(0, 1);
#if N > 2
  putInOrder(1, 2);
  putInOrder(0, 1)
#endif
}

/* How each step of a process ends. */
inline end() {
  countStep();
  chosen = 0;
  putAllInOrder()
}

/* What it sent last may still land. */
inline crash(n) {
  lost(n);
  w = 0;
  do
  :: w < N -> still[AT(n, w)] = 0; w++
  :: else -> break
  od;
  w = 0;
  blockSeen[n] = 0;
  up = (lives(n) -> up & ~BIT(n) : up)
}

proctype Node(byte me) {
  do
  HEARTBEATS(me)
  /* Reads. Hints may wake it; after the faults nothing but heartbeats does. */
  :: d_step { asks(me) && ((mustRead & BIT(me)) || credit[me] > 0 || (hasNews(me) && !calm)) -> ask(me, VIEW); end() }
  /* Changes. */
  :: atomic { wantsRelease(me) -> chooseBut(NONE); d_step { ask(me, RELEASE); end() } }
  :: d_step { wantsAcknowledge(me) -> ask(me, ACKNOWLEDGE); end() }
  :: d_step { wantsClaim(me) -> ask(me, CLAIM); end() }
#ifdef MUTANT_ACKNOWLEDGE_EARLY
  /* It says that it has stopped, and stops when it gets round to it. */
  :: d_step { asks(me) && lives(me) && blocked == me && has[me] == WORKS -> newBlock(NONE); end() }
#endif
#ifdef LATE_ANSWERS
  :: d_step { answered & BIT(me) -> follow(me); end() }
  :: d_step { !calm && slips > 0 && (answered & BIT(me)) -> slips--; giveUp(me); end() }
#endif
  /* A request is given up on before it has landed, which it does later, or never. */
  :: d_step { !calm && slips > 0 && hasRoom(me) && wantsRelease(me) -> sendLate(me, RELEASE); end() }
  :: d_step { !calm && slips > 0 && hasRoom(me) && wantsAcknowledge(me) -> sendLate(me, ACKNOWLEDGE); end() }
  :: d_step { !calm && slips > 0 && hasRoom(me) && wantsClaim(me) -> sendLate(me, CLAIM); end() }
  :: atomic { late[me] != QUIET ->
              chooseBut(NONE); d_step { carryOut(me, late[me]); late[me] = QUIET; end() } }
  /* Work ends by itself. */
  :: d_step { !calm && has[me] == WORKS -> has[me] = ENDED; end() }
  /* A target that is slow to claim is passed over: how slow makes no difference here. */
  :: atomic { !calm && target == me && holder == NONE && lives(me) ->
              chooseBut(NONE); d_step { plan(); announce(BIT(me)); end() } }
  /* Operators take the lease away, or have it handed over. */
  :: atomic { !calm && orders > 0 && holder == me ->
              chooseBut(NONE); d_step { orders--; newBlock(me); vacate(); plan(); announce(BIT(me)); end() } }
  :: atomic { !calm && orders > 0 && holder == me && target == me && (alive & ~BIT(me)) ->
              chooseBut(me); d_step { orders--; plan(); announce(BIT(me)); end() } }
  /* Crashes, and new starts. */
  :: d_step { !calm && crashes > 0 && runs(me) && joined(me) -> crashes--; crash(me); end() }
  :: d_step { runs(me) && !joined(me) && !lives(me) -> join(me); end() }
  /* The others. */
  WATCHES(me, 0)
  WATCHES(me, 1)
#if N > 2
  WATCHES(me, 2)
#endif
  od
}

inline passTime() {
  k = 0;
  do
  :: k < N ->
     age(k);
     /* What has lapsed never comes back. */
     if :: trust[k] == 0 && has[k] == WORKS -> has[k] = ENDED :: else fi;
     if :: blockSeen[k] > 0 && blockSeen[k] <= TTL -> blockSeen[k]++ :: else fi;
     hearIfIdle(k);
     k++
  :: else -> break
  od;
  k = 0;
  ageWatched();
#ifdef LIVENESS
  beatDone = 0;
  tried = 0;
  steps = 0;
  /* Where no process is left, there is nobody to work; then it counts from when the first comes back. */
  if :: calm && up != 0 && since < BOUND -> since++ :: else fi;
#endif
  end()
}

#ifdef LIVENESS
/*
 * The faults are over. Until now everybody saw at once what there was to see, and nothing was lost; what can have been seen late or lost by
 * now, is: a watcher has not seen the beat of a crashed node stand still for as long as it has (it looked late, or began anew, or a
 * late heartbeat landed); a node has seen the block late; a request that was given up on has never landed; a process that has
 * no session any more does not come back.
 */
inline beCalm() {
  k = 0;
  do
  :: k < N ->
     if :: late[k] != QUIET -> late[k] = QUIET :: true fi;
     if :: blockSeen[k] > 1 -> blockSeen[k] = 1 :: blockSeen[k] > 2 -> blockSeen[k] = 2 :: true fi;
     if :: !joined(k) && !lives(k) -> up = up & ~BIT(k) :: true fi;
     w = 0;
     do
     :: w < N && lives(k) && !runs(k) ->
        if :: still[AT(w, k)] > 0 -> still[AT(w, k)] = 0 :: still[AT(w, k)] > 1 -> still[AT(w, k)] = 1 :: true fi;
        w++
     :: else -> break
     od;
     k++
  :: else -> break
  od;
  w = 0;
  calm = true;
  crashes = 0;
  slips = 0;
  orders = 0
}

/* A process that has no session comes back, or does not. */
inline comeBack() {
  k = 0;
  do
  :: k < N -> if :: !runs(k) && !lives(k) -> up = up | BIT(k) :: true fi; k++
  :: else -> break
  od
}
#endif

/*
 * After the faults time passes only when there is nothing else to do. They are over with a tick: what everybody would do between the
 * last fault and the next tick may be done before as well.
 */
proctype Clock() {
  do
  :: d_step { !calm -> passTime() }
#ifdef LIVENESS
  :: atomic { !calm -> beCalm(); d_step { passTime() } }
  :: atomic { calm && timeout -> comeBack(); d_step { passTime() } }
#endif
  od
}

#define working ((has[0] == WORKS) + (has[1] == WORKS) + THIRD)
#if N > 2
#define THIRD (has[2] == WORKS)
#else
#define THIRD 0
#endif

proctype Monitor() {
  if
  :: working > 1 -> assert(false)
#ifdef LIVENESS
  :: since == BOUND && working != 1 -> assert(false)
  /* Time goes on: no round of things to do is without end. */
  :: steps > STEPS -> assert(false)
#endif
  fi
}

init {
  atomic {
    run Node(0);
    run Node(1);
#if N > 2
    run Node(2);
#endif
    run Clock();
    run Monitor()
  }
}
