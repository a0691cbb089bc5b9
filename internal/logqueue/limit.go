package logqueue

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A Rate is how many lines are logged: guests and peers can cause them at any rate. Of one message about one
// subject, Burst lines are logged per Window; the window ends with a line that says how many were left out.
type Rate struct {
	Subject string // the attribute that names what a line is about
	Burst   int
	Window  time.Duration
}

// PerPort is the rate of the daemon's log.
var PerPort = Rate{"port", 20, 10 * time.Second}

// maxKinds limits the messages that are counted separately; the rest count as one.
const maxKinds = 4096

// Limit limits the lines of a handler.
func Limit(h slog.Handler, r Rate) slog.Handler { return &limited{h, &counts{Rate: r, base: h}, ""} }

type limited struct {
	slog.Handler
	counts *counts
	of     string // the subject of all lines of this handler
}

// kind identifies lines that are counted together.
type kind struct{ message, of string }

// counts are the counts of the current window.
type counts struct {
	Rate
	base slog.Handler // for the line that ends the window

	mu    sync.Mutex
	began time.Time
	lines map[kind]int
	left  bool // lines were left out, so a timer ends the window
}

// allow counts a line and reports whether it may be logged.
func (c *counts) allow(k kind, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.began) >= c.Window && !c.left {
		c.began, c.lines = now, make(map[kind]int)
	}
	if _, known := c.lines[k]; !known && len(c.lines) >= maxKinds {
		k = kind{}
	}
	c.lines[k]++
	if c.lines[k] <= c.Burst {
		return true
	}
	if !c.left {
		c.left = true
		time.AfterFunc(c.Window-now.Sub(c.began), c.sumUp)
	}
	return false
}

// take ends the window and returns how many lines of each kind were left out.
func (c *counts) take() map[kind]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[kind]int)
	for k, n := range c.lines {
		if n > c.Burst {
			out[k] = n - c.Burst
		}
	}
	c.began, c.lines, c.left = time.Time{}, nil, false
	return out
}

// Handle implements slog.Handler.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	of := l.of
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == l.counts.Subject {
			of = a.Value.String()
		}
		return true
	})
	if !l.counts.allow(kind{r.Message, of}, time.Now()) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// sumUp logs how many lines the window left out.
func (c *counts) sumUp() {
	for k, n := range c.take() {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "lines left out, the like of which were logged", 0)
		r.AddAttrs(slog.Int("lines", n), slog.String("like", k.message))
		if k.of != "" {
			r.AddAttrs(slog.String(c.Subject, k.of))
		}
		_ = c.base.Handle(context.Background(), r)
	}
}

// WithAttrs implements slog.Handler.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	to := &limited{l.Handler.WithAttrs(attrs), l.counts, l.of}
	for _, a := range attrs {
		if a.Key == l.counts.Subject {
			to.of = a.Value.String()
		}
	}
	return to
}

// WithGroup implements slog.Handler.
func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.counts, l.of}
}
