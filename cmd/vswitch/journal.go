package main

import (
	"context"
	"io"
	"log/slog"
)

// journal is a log as systemd-journald reads it from a service's standard error: text, with
// the priority in front (sd-daemon(3)). The time and the level are left out, the journal has
// them.
type journal map[slog.Level]slog.Handler

// priorities are those of syslog(3).
var priorities = map[slog.Level]string{
	slog.LevelDebug: "<7>", slog.LevelInfo: "<6>", slog.LevelWarn: "<4>", slog.LevelError: "<3>",
}

func newJournal(w io.Writer) slog.Handler {
	short := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	all := make(journal, len(priorities))
	for level, prefix := range priorities {
		all[level] = slog.NewTextHandler(prefixed{w, prefix}, &slog.HandlerOptions{ReplaceAttr: short})
	}
	return all
}

// Enabled implements slog.Handler.
func (j journal) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements slog.Handler.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	level := slog.LevelDebug
	for l := range j {
		if l <= r.Level && l > level {
			level = l
		}
	}
	return j[level].Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (j journal) WithGroup(name string) slog.Handler {
	return j.each(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (j journal) each(f func(slog.Handler) slog.Handler) slog.Handler {
	all := make(journal, len(j))
	for level, h := range j {
		all[level] = f(h)
	}
	return all
}

// prefixed writes a prefix before each write, in one write with it.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p prefixed) Write(b []byte) (int, error) {
	line := append([]byte(p.prefix), b...)
	n, err := p.w.Write(line)
	return max(0, n-len(p.prefix)), err
}
