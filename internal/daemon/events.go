package daemon

import (
	"slices"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

// emit tells the features that listen what happened. It may be called from any goroutine.
// What guests can cause at any rate is limited before.
func (m *manager) emit(e api.Event) {
	e.Time = time.Now()
	for _, f := range *m.observers.Load() {
		f.Observe(e)
	}
}

// shareObservers gives emit the features that listen.
func (m *manager) shareObservers() {
	all := slices.Collect(instances[feature.Observed](m))
	m.observers.Store(&all)
}
