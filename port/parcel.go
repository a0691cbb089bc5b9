package port

import "fmt"

// A switch goes on without a lost frame when its process is replaced: the next process takes
// the ports of the former one, with what waits in them. The former one gives a Parcel for each
// port and does not close it; so if the next one fails, the former resumes.
//
//	former: Pausable.Pause ─▶ Giver.Give ─▶ Parcel ─▶ next: Heir.Take ─▶ Port

// Parcel is what a process gives to the next one of an open port. Only the port's kind reads it.
type Parcel struct {
	Format int    // of Data, as the kind counts them
	Data   []byte // JSON
	Files  []int  // descriptors; the holder of the Parcel owns them
}

// Check returns an error unless the Parcel has the format that a kind reads, and as many files.
func (p *Parcel) Check(format, files int) error {
	switch {
	case p.Format != format:
		return fmt.Errorf("it is given in format %d, and this vswitch takes format %d", p.Format, format)
	case len(p.Files) != files:
		return fmt.Errorf("it is given with %d files, and takes %d", len(p.Files), files)
	}
	return nil
}

// Giver is implemented by ports that another process can take.
type Giver interface {
	Pausable

	// Give returns the Parcel of the port. Before the port is paused, it returns nil unless
	// the Parcel stays true while the port works, as that of a socket that both processes
	// may have open. When the port is paused and nobody sends, it also stops whatever else
	// the port does, until Resume.
	Give(paused bool) (*Parcel, error)
}

// Lasting is implemented by Givers whose port another process can also go on with after this one
// has died, with something that changes while the port works. That of other Givers is what Give
// returns before the port is paused.
type Lasting interface {
	Giver

	// Last returns the Parcel; nil: nothing helps now. Any goroutine may call it.
	Last() (*Parcel, error)

	// LastChanged returns a channel that has a value after the Parcel has changed. Changes that
	// nobody received yet merge into one value. It is never closed.
	LastChanged() <-chan struct{}
}

// Heir is implemented by kinds whose ports are Givers.
type Heir interface {
	// Take is Open for a port that another process gave, and still has open, or had when it died. It duplicates
	// the Parcel's files. An error says why the Parcel is not understood, or what it lacks; it
	// leaves what the other process uses as it was.
	Take(spec Spec, trace *Trace, from *Parcel) (Port, error)
}
