package main

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/internal/logqueue"
)

// lastLines is how long the daemon waits for the log's reader when it stops.
const lastLines = 500 * time.Millisecond

// daemonLog returns a daemon's log on out, in the given format. The daemon never waits for
// the log's reader. end ends the log.
func daemonLog(format string, out io.Writer) (log *slog.Logger, end func(), err error) {
	var handler func(io.Writer) slog.Handler
	switch format {
	case "text":
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) }
	case "json":
		handler = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }
	case "journal":
		handler = newJournal
	default:
		return nil, nil, usagef("there is no log format %q; use text, json or journal", format)
	}
	q := logqueue.New(out, func(w io.Writer, lost uint64) error {
		failed := &firstError{w: w}
		slog.New(handler(failed)).Warn("log lines lost: their reader was too slow, or away", "lines", lost)
		return failed.err
	})
	return slog.New(logqueue.Limit(handler(q), logqueue.PerPort)), func() { q.Close(lastLines) }, nil
}

// firstError keeps the error of a Write, which slog drops.
type firstError struct {
	w   io.Writer
	err error
}

func (f *firstError) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if f.err == nil {
		f.err = err
	}
	return n, err
}

// outliveTerminal keeps the daemon going when its terminal hangs up, the reader of its log
// goes, or it runs in the background of a terminal where only the foreground may write
// (`stty tostop`). SIGHUP reloads nothing: settings change by commands. end reverts this.
func outliveTerminal(log *slog.Logger) (end func()) {
	signal.Ignore(syscall.SIGPIPE) // otherwise Go ends a program that writes to a closed stderr
	signal.Ignore(syscall.SIGTTOU) // otherwise the kernel stops it, and the switch with it
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hups {
			log.Info("SIGHUP: there is nothing to read anew, the switch goes on; SIGTERM stops it")
		}
	}()
	return func() { signal.Stop(hups); close(hups); <-done }
}
