package daemon

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/daemon/store"
)

// fakeService is a service manager with a watchdog.
type fakeService struct {
	mu   sync.Mutex
	sent []string
}

func (s *fakeService) Send(m string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, m)
}

func (s *fakeService) Store(string, int) {}
func (s *fakeService) Remove(string)     {}

func (s *fakeService) Watchdog() time.Duration { return 10 * time.Second }

// heard returns how often the watchdog heard of the daemon since the last call.
func (s *fakeService) heard() (n int) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.sent {
		if m == "WATCHDOG=1" {
			n++
		}
	}
	s.sent = nil
	return n
}

// The watchdog hears of the daemon while its loop runs, and no longer when a turn does not end.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(fakeService)
		r := startWith(t, newFakeHost(), store.State{}, func(o *Options) { o.Service = s })
		r.begin(Options{})
		s.mu.Lock()
		ready := slices.Contains(s.sent, "READY=1\nSTATUS=switch sw0 has 0 ports")
		s.mu.Unlock()
		if !ready {
			t.Error("the service manager is not told that the switch is ready")
		}
		s.heard()
		time.Sleep(time.Minute)
		if n := s.heard(); n < 11 || n > 13 {
			t.Errorf("the watchdog heard %d times in a minute, want twice as often as it asks", n)
		}
		stuck := make(chan struct{})
		go r.do(func() error { <-stuck; return nil })
		synctest.Wait()
		s.heard()
		time.Sleep(time.Minute)
		if n := s.heard(); n != 0 {
			t.Errorf("the watchdog heard %d times of a loop that is stuck", n)
		}
		close(stuck)
		time.Sleep(time.Minute)
		if s.heard() == 0 {
			t.Error("the watchdog hears nothing of a loop that runs again")
		}
	})
}
