/*
 * The agreement of two adjacent attempts (0 and 1, and the entry into 2): four peers, one of them Byzantine.
 *
 * What it models, what it leaves out and which code each action stands for: docs/agreement.md. Discrete time: D ticks are the
 * delivery bound. What arrives in the very tick of a deadline is in time, in any order.
 *
 * The network: the attacker may deliver anything that exists at any instant, so a message between honest peers needs
 * nothing but its last instant. A box holds 0 (not sent), 1 (due in this tick), t (due in t - 1 ticks) or HAD.
 *
 * Weakened rules, each of which the search refutes: C2D (join on any trigger or view until c + 2D), NOW (rounds do not
 * wait until the attempt before is closed), RAW (a raw trigger joins), FIX2D (chains of any length until c + 2D), NOSET
 * (a set of messages of the next attempt closes nothing). RESTART: one honest peer is restarted, once, at any instant;
 * RESETC: and its wait after the certificate begins anew.
 */
#ifndef D
#define D 2
#endif
#define F 1
#define LAST (2 * (F + 1) * D)  /* the rounds of Dolev-Strong; also the wait that closes an attempt by time */

#if defined(C2D) || defined(FIX2D)
#define QUIET (2 * D)
#elif defined(NOW)
#define QUIET 0
#else
#define QUIET LAST
#endif

/* How a peer ended an attempt: not yet, by certificate, by an OUTCOME of the certificate's value, by another one. */
#define NOT 0
#define CERT 1
#define AGREED 2
#define OTHER 3

#define HAD 15

#define X(m, i) ((m) * 3 + (i))

/* Boxes per attempt and peer: raw trigger, view with a chain of one and of two, certificate, set of the messages of the
 * next attempt, a majority of OUTCOMEs. */
byte raw[6], view1[6], view2[6], cert[6], next[6], out[6];
/* Ended by; ticks since the certificate; ticks + 1 left of the rounds; own OUTCOME; triggered; rounds started; closed to;
 * own view shows the certificate; holds it while frozen; holds the set. */
byte en[6], el[6], left[6], said[6];
bit tr[6], st[6], cl[6], shows[6], holds[6], whole[6];
/* The attempt that a peer is in; what waits for its entry into 1: 1 a trigger, 2 a view to be passed on. */
byte cur[3], held[3];
bit spoke[3];
byte move, m, i;
#ifdef RESTART
bit restarted, mute;
#else
#define mute 0
#endif

/* All honest CLOSEs are signed; an honest peer signed a chain; ticks + 1 since the first start; what the union decides. */
bit exists[2], relayed[2];
byte since[2], decided[2];
bit disagree, starts_apart, starts_twice, says_twice, hangs, seen;

#define FR(m, i) (tr[X(m,i)] && en[X(m,i)] == NOT)
#define PENDING(t) (t != 0 && t != HAD)
#define DUE_TO(m, i) (raw[X(m,i)] == 1 || view1[X(m,i)] == 1 || view2[X(m,i)] == 1 || cert[X(m,i)] == 1 || next[X(m,i)] == 1 || out[X(m,i)] == 1)
#define DUE(i) (DUE_TO(0, i) || DUE_TO(1, i))
#define ALLSPOKE(m) ((m == 0 && spoke[0] && spoke[1] && spoke[2]) || (m == 1 && cur[0] == 2 && cur[1] == 2 && cur[2] == 2))
#define ALLCERT(m) (en[X(m,0)] == CERT && en[X(m,1)] == CERT && en[X(m,2)] == CERT)
#define ALLSTARTED(m) (st[X(m,0)] && st[X(m,1)] && st[X(m,2)])
#define SHOWN(m) ((st[X(m,0)] && shows[X(m,0)]) || (st[X(m,1)] && shows[X(m,1)]) || (st[X(m,2)] && shows[X(m,2)]))
#define SAID(m, v) ((said[X(m,0)] == v) + (said[X(m,1)] == v) + (said[X(m,2)] == v))
#define RUNS(m, i) (en[X(m,i)] == CERT && !cl[X(m,i)] && !tr[X(m,i)])
#define QUIETDUE(m, i) (RUNS(m, i) && el[X(m,i)] == QUIET && !DUE(i))
#define SAYDUE(m, i) (left[X(m,i)] == 1 && !DUE(i))

#define put(box, m, i) \
  if \
  :: i != 0 && box[X(m,0)] == 0 -> box[X(m,0)] = D + 1 \
  :: else \
  fi; \
  if \
  :: i != 1 && box[X(m,1)] == 0 -> box[X(m,1)] = D + 1 \
  :: else \
  fi; \
  if \
  :: i != 2 && box[X(m,2)] == 0 -> box[X(m,2)] = D + 1 \
  :: else \
  fi

inline begin_rounds(m, i) {
  if
#ifdef NOW
  :: tr[X(m,i)] && !st[X(m,i)] && !cl[X(m,i)] ->
#else
  :: tr[X(m,i)] && !st[X(m,i)] && !cl[X(m,i)] && (m == 0 || cl[X(0,i)]) ->
#endif
    assert(since[m] <= D + 1 || ALLCERT(m) || starts_apart);
    assert(!st[X(m,i)] || starts_twice);
    if
    :: since[m] == 0 -> since[m] = 1
    :: else
    fi;
    st[X(m,i)] = 1; shows[X(m,i)] = (en[X(m,i)] == CERT || holds[X(m,i)]);
    left[X(m,i)] = LAST + 1; relayed[m] = 1;
    put(view1, m, i);
    if
    :: m == 1 && whole[X(0,i)] -> put(next, 0, i)
    :: else
    fi
  :: else
  fi
}

inline trigger(m, i) {
  if
  :: !tr[X(m,i)] ->
    tr[X(m,i)] = 1; el[X(m,i)] = 0;
    if
    :: en[X(m,i)] == NOT -> put(raw, m, i)
    :: else
    fi
  :: else
  fi
}

inline enter(m, i) {
  cur[i] = m + 1;
  if
  :: m == 0 && held[i] ->
    trigger(1, i);
    if
    :: held[i] == 2 -> put(view2, 1, i); relayed[1] = 1
    :: else
    fi;
    held[i] = 0
  :: m == 0 && !held[i] ->
    spoke[i] = 1;
    if
    :: ALLSPOKE(0) && !FR(1,0) && !FR(1,1) && !FR(1,2) -> exists[1] = 1
    :: else
    fi
  :: else
  fi
}

inline agree(m) {
  assert((en[X(m,0)] != OTHER && en[X(m,1)] != OTHER && en[X(m,2)] != OTHER) ||
         ((en[X(m,0)] == NOT || en[X(m,0)] == OTHER) && (en[X(m,1)] == NOT || en[X(m,1)] == OTHER) && (en[X(m,2)] == NOT || en[X(m,2)] == OTHER)) || disagree)
}

inline take_set(m, i) {
  whole[X(m,i)] = 1;
  if
  :: !cl[X(m,i)] ->
    cl[X(m,i)] = 1; el[X(m,i)] = 0;
    if
    :: tr[X(m,i)] && en[X(m,i)] == CERT -> left[X(m,i)] = 0; put(next, m, i)
    :: else
    fi
  :: else
  fi
}

inline take_raw(m, i) {
  raw[X(m,i)] = HAD;
  if
  :: cur[i] < m && held[i] == 0 -> held[i] = 1
  :: cur[i] >= m && en[X(m,i)] == NOT -> trigger(m, i)
#if defined(RAW) || defined(C2D) || defined(NOW)
  :: en[X(m,i)] != NOT && !cl[X(m,i)] && !tr[X(m,i)] -> trigger(m, i)
#endif
  :: else
  fi
}

#ifdef FIX2D
#define INTIME(m, i, k) (el[X(m,i)] <= 2 * D)
#elif defined(C2D) || defined(NOW)
#define INTIME(m, i, k) 1
#else
#define INTIME(m, i, k) (el[X(m,i)] <= 2 * k * D)
#endif

#define take_view(m, i, k, box) \
  box[X(m,i)] = HAD; \
  if \
  :: cur[i] < m && k <= F -> held[i] = 2 \
  :: cur[i] < m && k > F && held[i] == 0 -> held[i] = 1 \
  :: cur[i] >= m && !tr[X(m,i)] && en[X(m,i)] == NOT -> \
    trigger(m, i); \
    if \
    :: k <= F -> put(view2, m, i); relayed[m] = 1 \
    :: else \
    fi \
  :: cur[i] >= m && !tr[X(m,i)] && en[X(m,i)] != NOT && cl[X(m,i)] -> \
    if \
    :: whole[X(m,i)] -> put(next, m, i) \
    :: else \
    fi \
  :: RUNS(m, i) && INTIME(m, i, k) -> \
    trigger(m, i); \
    if \
    :: k <= F -> put(view2, m, i); relayed[m] = 1 \
    :: else \
    fi \
  :: else \
  fi

inline take_cert(m, i) {
  cert[X(m,i)] = HAD;
#ifndef NOSET
  if
  :: m == 1 -> take_set(0, i)
  :: else
  fi;
#endif
  if
  :: FR(m, i) -> holds[X(m,i)] = 1; put(cert, m, i)
  :: en[X(m,i)] == NOT && !tr[X(m,i)] ->
    en[X(m,i)] = CERT; put(cert, m, i); agree(m);
    enter(m, i)
  :: else
  fi
}

inline take_next(m, i) { next[X(m,i)] = HAD; take_set(m, i) }

inline take_out(m, i) {
  out[X(m,i)] = HAD; put(out, m, i);
  cl[X(m,i)] = 1; left[X(m,i)] = 0; el[X(m,i)] = 0;
  if
  :: en[X(m,i)] == NOT ->
    en[X(m,i)] = (SAID(m, AGREED) >= 2 -> AGREED : OTHER);
    agree(m);
    enter(m, i)
  :: else -> assert(en[X(m,i)] != CERT || SAID(m, AGREED) >= 2 || disagree)
  fi
}

inline say(m, i, v) {
  left[X(m,i)] = 0; decided[m] = v;
  assert(said[X(m,i)] == 0 || says_twice);
  said[X(m,i)] = v;
  if
  :: SAID(m, v) == 3 -> put(out, m, 3)
  :: else
  fi
}

/* What can change nothing any more is forgotten, so that equal states are the same state. */
inline tidy(m, i) {
  if
  :: tr[X(m,i)] || (m > cur[i] && held[i] > 0) -> raw[X(m,i)] = HAD; view2[X(m,i)] = HAD
  :: else
  fi;
  if
  :: tr[X(m,i)] || (m > cur[i] && held[i] == 2) -> view1[X(m,i)] = HAD
  :: else
  fi;
#if !defined(RAW) && !defined(C2D) && !defined(NOW)
  if
  :: en[X(m,i)] != NOT -> raw[X(m,i)] = HAD
  :: else
  fi;
#endif
  if
  :: cl[X(m,i)] && !whole[X(m,i)] && out[X(m,i)] == HAD -> view1[X(m,i)] = HAD; view2[X(m,i)] = HAD
  :: else
  fi;
  if
  :: whole[X(m,i)] -> next[X(m,i)] = HAD
  :: else
  fi;
  if
  :: (en[X(m,i)] != NOT || holds[X(m,i)]) && (m == 0 || whole[X(0,i)]) -> cert[X(m,i)] = HAD
  :: else
  fi
}

#define IDLE(m, i) (cl[X(m,i)] && left[X(m,i)] == 0)
inline wipe(m, i) {
  raw[X(m,i)] = HAD; view1[X(m,i)] = HAD; view2[X(m,i)] = HAD; cert[X(m,i)] = HAD; next[X(m,i)] = HAD; out[X(m,i)] = HAD;
  en[X(m,i)] = AGREED; said[X(m,i)] = 0; tr[X(m,i)] = 0; st[X(m,i)] = 0; shows[X(m,i)] = 0; holds[X(m,i)] = 0
}
/* Honest peers are alike: they are sorted after each move (NOSORT: not). A partial key only finds less that is equal. */
#define KEY(i) ((((((((((((cur[i] * 4 + en[i]) * 4 + en[i+3]) * 2 + tr[i]) * 2 + tr[i+3]) * 2 + cl[i]) * 2 + cl[i+3]) * 2 + st[i]) * 2 + st[i+3]) * 2 + whole[i]) * 16 + (el[i]+left[i])) * 16 + (el[i+3]+left[i+3])) * 4 + held[i])
#define KEY2(i) ((((((raw[i+3] * 16 + view1[i+3]) * 16 + view2[i+3]) * 16 + cert[i+3]) * 16 + next[i+3]) * 16 + next[i]) * 16 + view1[i])
byte t;
#define EXCHANGE(a, p, q) t = a[p]; a[p] = a[q]; a[q] = t
#define EXCHANGE2(a, p, q) EXCHANGE(a, p, q); EXCHANGE(a, p + 3, q + 3)
#define ORDER(p, q) \
  if \
  :: KEY(p) > KEY(q) || (KEY(p) == KEY(q) && KEY2(p) > KEY2(q)) -> \
    EXCHANGE2(raw, p, q); EXCHANGE2(view1, p, q); EXCHANGE2(view2, p, q); EXCHANGE2(cert, p, q); EXCHANGE2(next, p, q); EXCHANGE2(out, p, q); \
    EXCHANGE2(en, p, q); EXCHANGE2(el, p, q); EXCHANGE2(left, p, q); EXCHANGE2(said, p, q); EXCHANGE2(tr, p, q); EXCHANGE2(st, p, q); \
    EXCHANGE2(cl, p, q); EXCHANGE2(shows, p, q); EXCHANGE2(holds, p, q); EXCHANGE2(whole, p, q); \
    EXCHANGE(cur, p, q); EXCHANGE(held, p, q); EXCHANGE(spoke, p, q); t = 0 \
  :: else \
  fi

byte n;

inline finish() {
  begin_rounds(0, i); begin_rounds(1, i);
  n = 0;
  do
  :: n < 3 -> tidy(0, n); tidy(1, n); n++
  :: n == 3 -> break
  od;
  if
  :: IDLE(0, 0) && IDLE(0, 1) && IDLE(0, 2) ->
    n = 0;
    do
    :: n < 3 -> wipe(0, n); n++
    :: n == 3 -> break
    od;
    since[0] = D + 2; relayed[0] = 0; decided[0] = 0; exists[0] = 0
  :: else
  fi;
#ifndef NOSORT
  n = 0;
  do
  :: n < 3 -> ORDER((n & 1), (n & 1) + 1); n++
  :: n == 3 -> break
  od;
#endif
  n = 0
}

#ifdef NOSET
#define NEXTS(m, i)
#else
#define NEXTS(m, i) \
  :: next[X(m,i)] != HAD && ALLSPOKE(m) -> CHOOSE(5, m, i)
#endif

#define CHOOSE(what, where, who) move = what; m = where; i = who

#define MOVES(m_, i_) \
  :: raw[X(m_,i_)] != HAD && m_ <= cur[i_] + 1 -> CHOOSE(1, m_, i_) \
  :: view1[X(m_,i_)] != HAD && m_ <= cur[i_] + 1 -> CHOOSE(2, m_, i_) \
  :: view2[X(m_,i_)] != HAD && relayed[m_] && m_ <= cur[i_] + 1 -> CHOOSE(3, m_, i_) \
  :: cert[X(m_,i_)] != HAD && exists[m_] && m_ <= cur[i_] -> CHOOSE(4, m_, i_) \
  NEXTS(m_, i_) \
  :: out[X(m_,i_)] != HAD && (SAID(m_, AGREED) >= 2 || SAID(m_, OTHER) >= 2) && m_ <= cur[i_] -> CHOOSE(6, m_, i_) \
  :: QUIETDUE(m_, i_) -> CHOOSE(7, m_, i_) \
  :: SAYDUE(m_, i_) && decided[m_] != OTHER && (SHOWN(m_) || exists[m_] || decided[m_] == AGREED) -> CHOOSE(8, m_, i_) \
  :: SAYDUE(m_, i_) && decided[m_] != AGREED && !SHOWN(m_) -> CHOOSE(9, m_, i_)

#define WAITS(m, i) (left[X(m,i)] == 1 || (RUNS(m, i) && el[X(m,i)] == QUIET))
#define NOTHING_DUE(i) (!DUE(i) && !WAITS(0, i) && !WAITS(1, i))
#define MOVING(m, i) (PENDING(raw[X(m,i)]) || PENDING(view1[X(m,i)]) || PENDING(view2[X(m,i)]) || PENDING(cert[X(m,i)]) || PENDING(next[X(m,i)]) || PENDING(out[X(m,i)]) || left[X(m,i)] != 0 || RUNS(m, i))
#define STUCK(m, i) (FR(m, i) || (tr[X(m,i)] && !cl[X(m,i)]) || (cur[i] > m && !cl[X(m,i)]))

#define ANYMOVING (MOVING(0,0) || MOVING(0,1) || MOVING(0,2) || MOVING(1,0) || MOVING(1,1) || MOVING(1,2))
#define ANYSTUCK (STUCK(0,0) || STUCK(0,1) || STUCK(0,2) || STUCK(1,0) || STUCK(1,1) || STUCK(1,2))

#define less(box) \
  if \
  :: PENDING(box[n]) -> box[n]-- \
  :: else \
  fi

inline skew(m) {
  if
  :: since[m] == D + 1 -> assert(ALLSTARTED(m) || ALLCERT(m) || starts_apart); since[m] = D + 2
  :: since[m] > 0 && since[m] <= D -> since[m]++
  :: else
  fi
}

inline tick() {
  skew(0); skew(1);
  n = 0;
  do
  :: n < 6 ->
    less(raw); less(view1); less(view2); less(cert); less(next); less(out);
    if
    :: left[n] > 0 -> left[n]--
    :: else
    fi;
    if
    :: en[n] == CERT && !cl[n] && !tr[n] -> el[n]++
    :: else
    fi;
    n++
  :: n == 6 -> break
  od;
  n = 0
}


#ifdef RESTART
#ifdef RESETC
#define LOSES(i) 1
#else
#define LOSES(i) (left[X(0,i)] > 0 || left[X(1,i)] > 0)  /* nothing else that the model has is lost */
#endif
#define RESTARTS \
  :: !restarted && LOSES(0) -> CHOOSE(11, 0, 0) \
  :: !restarted && LOSES(1) -> CHOOSE(11, 0, 1) \
  :: !restarted && LOSES(2) -> CHOOSE(11, 0, 2)

/* Rounds that were partly missed end without an OUTCOME of this peer. RESETC: the wait after the certificate begins anew. */
inline forget(m, i) {
  if
  :: left[X(m,i)] > 0 -> left[X(m,i)] = 0; mute = 1
  :: else
  fi;
#ifdef RESETC
  if
  :: en[X(m,i)] == CERT && !whole[X(m,i)] && out[X(m,i)] != HAD -> el[X(m,i)] = 0; cl[X(m,i)] = 0
  :: else
  fi
#endif
}
inline restart(i) { restarted = 1; forget(0, i); forget(1, i) }
#else
#define RESTARTS
#endif

/* What the search has to come upon (REACH=n: a search that says "seen" did): else a pass would show nothing. */
#define JOINED(m, i) (tr[X(m,i)] && en[X(m,i)] == CERT)
#if REACH == 1
#define NEVER (JOINED(0,0) || JOINED(0,1) || JOINED(0,2))
#elif REACH == 2
#define NEVER (en[X(1,0)] == OTHER && en[X(1,1)] == OTHER && en[X(1,2)] == OTHER)
#elif REACH == 3
#define NEVER (FR(1,0) && holds[X(1,0)] && cur[1] == 2 && cur[2] == 2)
#elif REACH == 4
#define NEVER (JOINED(0,0) && FR(1,0) && !st[X(1,0)])
#elif REACH == 5
#define NEVER (en[X(0,0)] == CERT && en[X(0,1)] == CERT && en[X(0,2)] == AGREED)
#elif REACH == 6
#define NEVER (JOINED(0,0) && cl[X(0,0)] && whole[X(0,0)] && left[X(0,0)] == 0 && !cl[X(0,2)])
#else
#define NEVER 0
#endif

init {
  exists[0] = 1;
  do
  :: atomic {
    if
    MOVES(0, 0)
    MOVES(0, 1)
    MOVES(0, 2)
    MOVES(1, 0)
    MOVES(1, 1)
    MOVES(1, 2)
    RESTARTS
    :: NOTHING_DUE(0) && NOTHING_DUE(1) && NOTHING_DUE(2) && ANYMOVING -> move = 10
    :: !ANYMOVING -> assert((!ANYSTUCK && cur[0] == cur[1] && cur[1] == cur[2]) || mute || hangs); break
    fi;
    d_step {
      if
      :: move == 1 -> take_raw(m, i)
      :: move == 2 -> take_view(m, i, 1, view1)
      :: move == 3 -> take_view(m, i, 2, view2)
      :: move == 4 -> take_cert(m, i)
      :: move == 5 -> take_next(m, i)
      :: move == 6 -> take_out(m, i)
      :: move == 7 -> cl[X(m,i)] = 1; el[X(m,i)] = 0
      :: move == 8 -> say(m, i, AGREED)
      :: move == 9 -> say(m, i, OTHER)
      :: move == 10 -> tick()
#ifdef RESTART
      :: move == 11 -> restart(i)
#endif
      fi;
      if
      :: move != 10 -> finish()
      :: else
      fi;
      move = 0; m = 0; i = 0;
      assert(!NEVER || seen)
    }
  }
  od
}
