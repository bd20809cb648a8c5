@main struct Annulus { static func main() {} }
