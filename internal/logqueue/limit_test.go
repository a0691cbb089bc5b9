package logqueue

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The rate of most tests.
const (
	burst  = 20
	window = 10 * time.Second
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := new(reader)
		log := slog.New(Limit(slog.NewTextHandler(text, nil), Rate{"port", burst, window}))
		logged := func(of string) int {
			synctest.Wait()
			return strings.Count(strings.Join(text.lines(), "\n"), of)
		}
		// One port's lines are bounded, however the port is named, and no other's.
		for range 100 {
			log.Warn("port state", "port", "bad")
			log.With("port", "bad").WithGroup("g").Warn("tree")
		}
		for i := range 100 {
			log.Warn("port state", "port", fmt.Sprint("good", i))
		}
		if got := logged("\"port state\" port=bad"); got != burst {
			t.Errorf("%d lines of the port, want %d", got, burst)
		}
		if got := logged("tree"); got != burst {
			t.Errorf("%d lines of another message, want %d", got, burst)
		}
		if got := logged("port=good"); got != 100 {
			t.Errorf("%d lines of others, want all 100", got)
		}
		// The end of the window says what is missing, without another line.
		time.Sleep(window)
		if got := logged(fmt.Sprintf("lines=%d like=\"port state\" port=bad", 100-burst)); got != 1 {
			t.Errorf("log:\n%s", text.lines())
		}
		text.reset()
		log.Warn("port state", "port", "bad")
		time.Sleep(10 * window)
		if got := logged("port=bad"); got != 1 {
			t.Errorf("in the next window:\n%s", text.lines())
		}
		// Few lines, over a long time, are all logged.
		text.reset()
		for range 100 {
			log.Info("slow")
			time.Sleep(window / burst)
		}
		if got := logged("slow"); got != 100 {
			t.Errorf("%d lines a second apart, want 100", got)
		}
	})
}

// However many ports there are, what is counted is bounded.
func TestLimitForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limit(slog.DiscardHandler, PerPort).(*limited)
		log := slog.New(l)
		for i := range 3 * maxKinds {
			_ = l.Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, fmt.Sprint("message ", i), 0))
		}
		kinds := func() int {
			synctest.Wait()
			l.counts.mu.Lock()
			defer l.counts.mu.Unlock()
			return len(l.counts.lines)
		}
		if n := kinds(); n > maxKinds+1 {
			t.Errorf("%d kinds of lines are counted", n)
		}
		time.Sleep(PerPort.Window)
		synctest.Wait()
		log.Info("x")
		if n := kinds(); n > 1 {
			t.Errorf("%d kinds of lines after the window", n)
		}
	})
}
