package health

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
)

// daemon is one whose turn the test takes away.
type daemon struct {
	*featuretest.Host
	turn chan struct{} // has a value while nobody has the turn
}

func (d *daemon) Do(f func()) bool {
	<-d.turn
	defer func() { d.turn <- struct{}{} }()
	return d.Host.Do(f)
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{featuretest.New(t), make(chan struct{}, 1)}
		var c *checker
		ask := func(path string) int {
			w := httptest.NewRecorder()
			c.serve(w, httptest.NewRequest("GET", path, nil), path == "/v1/readyz")
			return w.Code
		}
		check := func(when string, health, ready int) {
			t.Helper()
			if h, r := ask("/v1/healthz"), ask("/v1/readyz"); h != health || r != ready {
				t.Errorf("%s: %d, %d; want %d, %d", when, h, r, health, ready)
			}
		}
		c = start(d)
		synctest.Wait()
		check("while ports are restored", http.StatusOK, http.StatusServiceUnavailable)
		d.turn <- struct{}{}
		synctest.Wait()
		check("once they are", http.StatusOK, http.StatusOK)
		<-d.turn
		began := time.Now()
		check("while the turn does not come", http.StatusServiceUnavailable, http.StatusServiceUnavailable)
		if took := time.Since(began); took != 2*patience {
			t.Errorf("two answers took %v, want %v each", took, patience)
		}
		d.turn <- struct{}{}
		synctest.Wait()
		check("when it comes again", http.StatusOK, http.StatusOK)
		c.Stop()
	})
}
