package events

import (
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
)

// Guests and peers cause events at any rate, and a flood of them must not drive all others out
// of the ring. So the events of one type at one port are limited to a burst, and after it to a
// rate at which the ring still holds hours. What a user does is never left out.
const (
	burst  = 20
	refill = 10 * time.Second // one more event
	report = time.Minute      // after which left out events are summed up
)

// subject is what a limit is for.
type subject struct{ kind, port string }

// limit is a token bucket that counts what exceeds it.
type limit struct {
	left   int       // events that may happen now
	at     time.Time // when left was last raised
	missed uint64
}

// limited reports whether the type can be caused by guests or peers.
func limited(kind string) bool {
	family, _, _ := strings.Cut(kind, ".")
	switch kind {
	case api.EventPortAdded, api.EventPortChanged, api.EventPortRemoved, api.EventLimited:
		return false
	}
	return family != "daemon" && family != "switch"
}

// limits are the limits of all subjects that had events lately.
type limits map[subject]*limit

// allow reports whether an event may be remembered now.
func (all limits) allow(s subject, now time.Time) bool {
	l := all[s]
	if l == nil {
		l = &limit{left: burst, at: now}
		all[s] = l
	}
	if n := int(now.Sub(l.at) / refill); n > 0 {
		l.left, l.at = min(burst, l.left+n), l.at.Add(time.Duration(n)*refill)
	}
	if l.left == 0 {
		l.missed++
		return false
	}
	l.left--
	return true
}

// sumUp returns an event for each subject that had events left out since the last call, and
// forgets the subjects that were silent for long.
func (all limits) sumUp(now time.Time) (events []api.Event) {
	for s, l := range all {
		if l.missed > 0 {
			events = append(events, api.Event{Time: now, Type: api.EventLimited, Port: s.port, Reason: s.kind, Count: l.missed})
			l.missed = 0
		} else if now.Sub(l.at) >= (burst+1)*refill {
			delete(all, s)
		}
	}
	return events
}
