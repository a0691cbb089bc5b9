package logqueue

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A guest or a peer can cause a line at any rate. Of one message about one port, burst lines
// are logged per window; the window ends with a line that says how many were left out.
const (
	burst  = 20
	window = 10 * time.Second

	// maxKinds limits the messages that are counted separately; the rest count as one.
	maxKinds = 4096
)

// Limit limits the lines of a handler.
func Limit(h slog.Handler) slog.Handler { return &limited{h, &counts{base: h}, ""} }

type limited struct {
	slog.Handler
	counts *counts
	port   string // the port attribute of all lines of this handler
}

// kind identifies lines that are counted together.
type kind struct{ message, port string }

// counts are the counts of the current window.
type counts struct {
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
	if now.Sub(c.began) >= window && !c.left {
		c.began, c.lines = now, make(map[kind]int)
	}
	if _, known := c.lines[k]; !known && len(c.lines) >= maxKinds {
		k = kind{}
	}
	c.lines[k]++
	if c.lines[k] <= burst {
		return true
	}
	if !c.left {
		c.left = true
		time.AfterFunc(window-now.Sub(c.began), c.sumUp)
	}
	return false
}

// take ends the window and returns how many lines of each kind were left out.
func (c *counts) take() map[kind]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[kind]int)
	for k, n := range c.lines {
		if n > burst {
			out[k] = n - burst
		}
	}
	c.began, c.lines, c.left = time.Time{}, nil, false
	return out
}

// Handle implements slog.Handler.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	port := l.port
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "port" {
			port = a.Value.String()
		}
		return true
	})
	if !l.counts.allow(kind{r.Message, port}, time.Now()) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// sumUp logs how many lines the window left out.
func (c *counts) sumUp() {
	for k, n := range c.take() {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "lines left out, the like of which were logged", 0)
		r.AddAttrs(slog.Int("lines", n), slog.String("like", k.message))
		if k.port != "" {
			r.AddAttrs(slog.String("port", k.port))
		}
		_ = c.base.Handle(context.Background(), r)
	}
}

// WithAttrs implements slog.Handler.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	to := &limited{l.Handler.WithAttrs(attrs), l.counts, l.port}
	for _, a := range attrs {
		if a.Key == "port" {
			to.port = a.Value.String()
		}
	}
	return to
}

// WithGroup implements slog.Handler.
func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.counts, l.port}
}
